"""Acknowledged commits are durable, whatever the defaults of the database are."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa

from milepost.domain.operation import Status
from milepost.domain.sweep import EXPIRE
from tests import factories

FULL = 2
"""The value of ``PRAGMA synchronous`` with which SQLite flushes the log at every commit."""


@pytest.fixture
def sessions(engine) -> Iterator[list[Any]]:
    """The driver connections of the engine, in the order in which they are opened."""
    opened: list[Any] = []

    def note(connection: Any, _record: object) -> None:
        opened.append(connection)

    sa.event.listen(engine, "connect", note)
    yield opened
    sa.event.remove(engine, "connect", note)


@pytest.fixture
def careless_database(engine, database_url) -> None:
    """A database whose defaults may lose commits."""
    if engine.dialect.name == "sqlite":
        with closing(sqlite3.connect(sa.make_url(database_url).database or "")) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
        sa.event.listen(engine, "connect", _flush_nothing, insert=True)
        return
    name = sa.make_url(database_url).database
    with engine.connect() as connection:
        connection.execute(sa.text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
        connection.commit()


def _flush_nothing(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")


@pytest.mark.usefixtures("careless_database")
async def test_every_session_is_durable(engine, sessions, store, stores):
    """Every writing session of the store flushes each commit, whatever the defaults are."""
    operation = await factories.reach(store, Status.PROCESSING)
    await store.get(operation.id, factories.access_filter())
    await stores.sweeps.sweep(EXPIRE, 1)
    settings = [durability(connection) for connection in sessions]
    writers = [found for writes, found in settings if writes]
    assert writers
    if engine.dialect.name == "sqlite":
        assert writers == [("wal", FULL)]  # there is one writer
    else:
        assert {found for _, found in settings} == {"on"}


def durability(connection: Any) -> tuple[bool, Any]:
    """Return whether a session writes, and its settings for durability."""

    def value(query: str) -> Any:
        (found,) = connection.execute(query).fetchone()
        return found

    if isinstance(connection, sqlite3.Connection):
        writes = not value("PRAGMA query_only")
        return writes, (value("PRAGMA journal_mode"), value("PRAGMA synchronous"))
    return value("SHOW default_transaction_read_only") == "off", value("SHOW synchronous_commit")
