"""The lock of the writers of a SQLite file: commands may write while the service runs."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from milepost.domain.api_key import issue_key
from milepost.domain.errors import StoreUnavailable
from milepost.domain.operation import Role
from milepost.domain.transitions import Transition
from milepost.storage import sqlite
from milepost.storage.api_keys import KeyRing, service_key
from milepost.storage.schema import current
from milepost.storage.writer_lock import WriterLock
from tests import factories
from tests.contract.stored import answers

HOLD = """
import sys
from milepost.storage.writer_lock import WriterLock
with WriterLock(sys.argv[1], 5.0):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def database_url(sqlite_url):
    """The URL of a SQLite file, where writers exclude each other themselves."""
    return sqlite_url


@contextlib.contextmanager
def writing_elsewhere(path: str) -> Iterator[None]:
    """Hold the lock in another process while the block runs."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield


@pytest.fixture
def path(engine) -> str:
    """The path of the database."""
    return str(engine.url.database)


async def test_service_waits_for_another_writer(store, path):
    """The service writes nothing, not even a checkpoint, while another process writes."""
    operation = await factories.create(store)
    with writing_elsewhere(path):
        (refused,) = await answers(factories.create(store))
        assert isinstance(refused, StoreUnavailable)
        assert await store.get(operation.id, factories.access_filter()) == operation
    await factories.create(store)


def test_commands_wait_for_another_writer(engine, path, monkeypatch):
    """A key is not stored while another process writes."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 100)
    assert current(engine)
    _, stored = issue_key(subject="alice", roles=[Role.CALLER], functions=[])
    with writing_elsewhere(path), pytest.raises(StoreUnavailable):
        KeyRing(engine).add(stored)
    KeyRing(engine).add(stored)
    assert len(KeyRing(engine).rows()) == 1


def test_lock_is_held_until_the_end_of_a_transaction(engine, path):
    """A transaction holds the lock beyond its commit, until a checkpoint can no longer follow."""
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT 1"))
        connection.commit()
        with pytest.raises(StoreUnavailable), WriterLock(path, 0.0):
            pass
    with WriterLock(path, 0.0):
        pass


async def test_every_statement_that_writes_runs_under_the_lock(engine, stores, path):
    """Inserts, updates, deletes and commits of the service all hold the lock."""
    unlocked: list[str] = []
    written: list[str] = []

    def note(statement: str) -> None:
        if statement.split(maxsplit=1)[0] in {"INSERT", "UPDATE", "DELETE", "WITH", "COMMIT"}:
            written.append(statement)
            with contextlib.suppress(StoreUnavailable), WriterLock(path, 0.0):
                unlocked.append(statement)

    sa.event.listen(engine, "connect", lambda driver, _: driver.set_trace_callback(note))
    operation = await factories.create(stores.operations)
    await stores.operations.apply(factories.change(Transition.CANCEL, operation.id))
    _, stored = issue_key(subject="alice", roles=[Role.CALLER], functions=[])
    KeyRing(engine).add(stored)
    KeyRing(engine).revoke(stored.principal.credential_id)
    service_key(engine, "page_tokens")
    assert len([each for each in written if each == "COMMIT"]) >= 5
    assert unlocked == []
