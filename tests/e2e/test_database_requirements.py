"""Databases that Milepost cannot run on: each command and the service name cause and remedy."""

import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.e2e.commands import OK, REFUSED, UNAVAILABLE, milepost
from tests.e2e.service import START_SECONDS, Service
from tests.machine import free_port
from tests.postgres import PostgresCluster
from tests.waiting import eventually

PROBLEM = (
    "the encoding of the database is LATIN1: use a database that was created with ENCODING 'UTF8'"
)


@pytest.fixture
def latin_url(postgres):
    """The URL of a database that cannot store every text."""
    name = f"milepost_latin_{uuid.uuid4().hex}"
    engine = sa.create_engine(postgres.url("postgres"), poolclass=sa.NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as admin:
        admin.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1'"))
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.mark.parametrize("command", ["migrate", "check-config"])
def test_commands(latin_url, command):
    """`migrate` and `check-config` refuse the database with one line, and change nothing."""
    done = milepost(command, MILEPOST_DATABASE_URL=latin_url)
    assert (done.code, done.err) == (REFUSED, f"error: database: {PROBLEM}\n")


def check_refusal(url: str, folder: Path, problem: str) -> None:
    """Assert that a service is not ready, and that its probe and its log have the reason."""
    service = Service(url, folder)
    service.start(ready=False)
    try:
        eventually(
            lambda: service.log_lines(event="not ready", problem=problem),
            within=START_SECONDS,
            what="logged",
        )
        eventually(lambda: service.problem() == problem, within=START_SECONDS, what="told")
    finally:
        service.stop()


def test_service(latin_url, tmp_path):
    """The service is not ready on a database that cannot store every text."""
    check_refusal(latin_url, tmp_path, PROBLEM)


def test_server_that_may_lose_changes(tmp_path):
    """A server without fsync is refused everywhere, and used if that is accepted."""
    problem = (
        "fsync is off, so a crash of the server may lose acknowledged changes: turn on what is off,"
        " or accept that with MILEPOST_ALLOW_DATA_LOSS"
    )
    with PostgresCluster(in_memory=True, settings={"fsync": "off"}) as cluster:
        url = cluster.url("postgres")
        done = milepost("migrate", MILEPOST_DATABASE_URL=url)
        assert (done.code, done.err) == (REFUSED, f"error: database: {problem}\n")
        check_refusal(url, tmp_path, problem)
        done = milepost("migrate", MILEPOST_DATABASE_URL=url, MILEPOST_ALLOW_DATA_LOSS="true")
        assert done.code == OK
        with Service(url, tmp_path, allow_data_loss="true") as service:
            assert service.client("alice").create().revision == 1


def test_check_of_a_good_database(postgres_url):
    """check-config accepts a database that meets the requirements."""
    done = milepost("check-config", MILEPOST_DATABASE_URL=postgres_url)
    assert (done.code, done.err) == (OK, "")


def test_check_of_the_connections(postgres_url):
    """check-config warns if the server has too few connections for the processes."""
    url = {"MILEPOST_DATABASE_URL": postgres_url}
    few = milepost("check-config", MILEPOST_PROCESSES="2", **url)
    assert (few.code, few.err) == (OK, "")
    many = milepost("check-config", MILEPOST_PROCESSES="16", **url)
    assert many.code == OK
    assert many.err == (
        "warning: 16 processes need 153 connections during a rolling restart, and the database"
        " server has 97 for all its clients: raise its max_connections\n"
    )


def test_check_without_a_database():
    """check-config warns if the database does not answer: the settings may still be right."""
    url = f"postgresql+psycopg://milepost:s3cret@127.0.0.1:{free_port()}/milepost"
    done = milepost("check-config", MILEPOST_DATABASE_URL=url)
    assert done.code == OK
    assert done.err.startswith("warning: database: ")
    assert "nothing listens at the address of the database (" in done.err
    assert "s3cret" not in done.err + done.out


def test_check_that_must_connect():
    """With --connect a database that does not answer fails, with exit code 4 and the cause."""
    url = f"postgresql+psycopg://milepost:s3cret@127.0.0.1:{free_port()}/milepost"
    done = milepost("check-config", "--connect", MILEPOST_DATABASE_URL=url)
    assert done.code == UNAVAILABLE
    assert done.err.startswith("error: database: nothing listens at the address of the database (")
    assert "s3cret" not in done.err + done.out


def test_check_of_the_schema(postgres):
    """With --connect a database without the schema fails, with the command to run."""
    done = milepost("check-config", "--connect", MILEPOST_DATABASE_URL=postgres.url("postgres"))
    assert done.code == REFUSED
    assert done.err.endswith("is needed: run milepost migrate\n")
