"""Requirements on PostgreSQL: a database that no session can make right is refused."""

import asyncio
import uuid

import pytest
import sqlalchemy as sa

from milepost.storage.engine import open_engine
from milepost.storage.requirements import unmet_requirement
from milepost.storage.server_requirements import Server
from tests.contract.transaction_pooler import transaction_pooler
from tests.postgres import PostgresCluster


@pytest.fixture
def make_database(postgres):
    """A function that creates a database with an encoding, and returns its URL."""
    made = []

    def make(encoding):
        name = f"milepost_{encoding.lower()}_{uuid.uuid4().hex}"
        made.append(name)
        admin = sa.create_engine(postgres.url("postgres"), poolclass=sa.NullPool)
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(
                sa.text(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}'")
            )
        return postgres.url(name)

    yield make
    for name in made:
        postgres.drop_database(name)


async def test_good_database(database_url):
    """A database of the tests meets every requirement, on each kind."""
    assert await asyncio.to_thread(unmet_requirement, open_engine(database_url)) is None


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_encoding(make_database, encoding):
    """A database that does not store Unicode is refused."""
    unmet = unmet_requirement(open_engine(make_database(encoding)))
    assert unmet == (
        f"the encoding of the database is {encoding}: use a database that was created with"
        " ENCODING 'UTF8'"
    )


def test_server_that_may_lose_changes():
    """A server that may lose acknowledged changes in a crash is refused unless that is accepted."""
    with PostgresCluster(settings={"fsync": "off", "full_page_writes": "off"}) as cluster:
        engine = open_engine(cluster.url("postgres"))
        assert unmet_requirement(engine) == (
            "fsync and full_page_writes are off, so a crash of the server may lose acknowledged"
            " changes: turn on what is off, or accept that with MILEPOST_ALLOW_DATA_LOSS"
        )
        assert unmet_requirement(engine, allow_data_loss=True) is None


def test_asynchronous_commits(postgres_url):
    """Commits are synchronous whatever the defaults are; to turn that off in the URL is refused."""
    url = sa.make_url(postgres_url)
    engine = open_engine(postgres_url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        alter = f"ALTER DATABASE {url.database} SET synchronous_commit = off"
        connection.execute(sa.text(alter))
    assert unmet_requirement(engine) is None

    def chosen(value):
        options = {"options": f"-c synchronous_commit={value}"}
        return open_engine(url.update_query_dict(options).render_as_string(hide_password=False))

    unmet = unmet_requirement(chosen("off"))
    assert unmet is not None
    assert unmet.startswith("synchronous_commit is off")
    assert unmet_requirement(chosen("remote_apply")) is None


def test_standby_server():
    """A standby is refused, and the same server is not once it is the primary server."""
    with PostgresCluster(durable=False) as cluster:
        engine = open_engine(cluster.url("postgres"))
        cluster.stop()
        signal = cluster.folder / "d" / "standby.signal"
        signal.touch()
        cluster.start()
        unmet = unmet_requirement(engine)
        assert unmet == "the server is a read-only standby: connect to the primary server"
        cluster.stop()
        signal.unlink()
        cluster.start()
        assert unmet_requirement(engine) is None


def test_read_only_database(postgres_url):
    """A database whose sessions are read-only by default is refused."""
    name = sa.make_url(postgres_url).database
    engine = open_engine(postgres_url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        alter = f"ALTER DATABASE {name} SET default_transaction_read_only = on"
        connection.execute(sa.text(alter))
    unmet = unmet_requirement(engine)
    assert unmet is not None
    assert unmet.startswith("default_transaction_read_only is on")


@pytest.mark.parametrize(("version", "is_met"), [(14_00_20, False), (15_00_00, True)])
def test_version(version, is_met):
    """PostgreSQL older than 15 is refused."""
    old = Server(version, "UTF8", unsafe=(), is_standby=False, is_read_only=False)
    unmet = old.unmet_requirement()
    assert (unmet is None) is is_met
    assert is_met or unmet == "the server is PostgreSQL 14: upgrade it to 15 or newer"


@pytest.mark.parametrize("servers", [1, 3])
async def test_transaction_pooler(postgres_url, servers):
    """A pooler that changes the server process between transactions is refused."""
    async with transaction_pooler(postgres_url, servers=servers) as url:
        unmet = await asyncio.to_thread(unmet_requirement, open_engine(url))
    assert unmet is not None
    assert unmet.startswith("a connection pooler in transaction or statement mode")
