"""Defaults of a server, database, role or environment change nothing."""

import asyncio
from datetime import timedelta

import psycopg
import pytest
import sqlalchemy as sa

from milepost.domain.selection import Selection
from milepost.domain.transitions import Transition
from milepost.storage.engine import open_engine
from milepost.storage.session import Session
from milepost.storage.session_settings import SETTINGS
from tests import factories

ODD = "naïve ☃ 日本"
TTL = timedelta(days=40, seconds=5, microseconds=7)
DEFAULTS = {
    "client_encoding": "LATIN1",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "America/St_Johns",
    "extra_float_digits": "-10",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "synchronous_commit": "off",
    "statement_timeout": "300",
    "lock_timeout": "1",
    "idle_in_transaction_session_timeout": "100",
    "idle_session_timeout": "100",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_nestloop": "off",
    "enable_sort": "off",
    "jit": "on",
}
ENVIRONMENT = {
    "PGCLIENTENCODING": "LATIN1",
    "PGOPTIONS": "-c datestyle=German -c default_transaction_isolation=serializable",
    "PGDATESTYLE": "SQL, DMY",
    "PGTZ": "America/St_Johns",
}


@pytest.fixture
def odd_environment(monkeypatch):
    """Variables of the PostgreSQL client that break a service which relies on their absence."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def odd_defaults(database_url, odd_environment):  # noqa: ARG001 - the defaults stand beside it
    """Defaults of a database that break a service which relies on those of the server."""
    if database_url.startswith("postgresql"):
        set_defaults(database_url)


def set_defaults(database_url, **others):
    """Set the odd defaults of a PostgreSQL database, with other ones of some settings."""
    url = sa.make_url(database_url)
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True, options="-c client_encoding=UTF8") as connection:
        for name, value in (DEFAULTS | others).items():
            connection.execute(f"ALTER DATABASE {url.database} SET {name} = '{value}'".encode())


@pytest.mark.usefixtures("odd_defaults")
async def test_values(store, replica):
    """Text, times, spans and numbers come back as they went in, for one row and for many."""
    access = factories.access_filter()
    created = await asyncio.gather(
        *(
            factories.create(each, function=f"{ODD}-{n}", metadata=ODD, ttl=TTL)
            for n in range(5)
            for each in (store, replica)
        )
    )
    started = await asyncio.gather(
        *(store.apply(factories.change(Transition.START, each.id)) for each in created)
    )
    for each in started:
        progress = factories.change(
            Transition.PROGRESS, each.operation.id, progress=0.1 + 0.2, message=ODD
        )
        await replica.apply(progress)
    listed = await factories.listed(store, access, Selection(), None, 100, full=True)
    assert len(listed) == len(created)
    for each in listed:
        found = (each.metadata, each.ttl, each.progress, each.progress_message)
        assert found == (ODD, TTL, 0.1 + 0.2, ODD)
        assert each.function.startswith(ODD)
        assert each.expire_time is not None
        assert each.expire_time.utcoffset() == timedelta(0)
        assert await replica.get(each.id, access) == each


@pytest.mark.usefixtures("odd_defaults")
async def test_races(store, replica):
    """Concurrent changes of one operation succeed one after the other, none is aborted."""
    operation = await factories.create(store, quota=100)
    await store.apply(factories.change(Transition.START, operation.id))
    await asyncio.gather(
        *(
            each.apply(factories.change(Transition.PROGRESS, operation.id, progress=0.5))
            for _ in range(20)
            for each in (store, replica)
        ),
        *(factories.create(each, quota=100) for _ in range(10) for each in (store, replica)),
    )


@pytest.mark.usefixtures("odd_environment")
def test_every_setting(postgres_url):
    """Each setting of a PostgreSQL session is the one of Milepost, whatever the default is."""
    set_defaults(postgres_url)
    assert set(DEFAULTS) == set(SETTINGS)
    session = Session(open_engine(postgres_url))
    rows = session.fetch(sa.text("SELECT lower(name), setting FROM pg_settings"))
    session.reset()
    found = {name: value for name, value in rows if name in SETTINGS}
    assert found == SETTINGS
