"""Every cause for which a database or Redis cannot be used has a name, and no name has a secret.

The readiness page has the name, the log has it once with the driver's text, and so has the failure
of ``check-config --connect``.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing, contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from milepost.config import load
from milepost.main.access import access_of
from milepost.main.checks import check
from milepost.main.database import DatabaseError
from milepost.main.embedded import EmbeddedStore
from milepost.main.readiness import STARTING, Readiness, database_is_usable
from milepost.storage import sqlite
from milepost.storage.engine import open_engine
from milepost.storage.failures import failure
from milepost.storage.session import Session
from tests.certificates import SERVER, Authority
from tests.machine import free_port
from tests.pgbouncer import pgbouncer
from tests.postgres import PostgresCluster
from tests.redis import RedisServer
from tests.waiting import until

PASSWORD = "pass-c4n4ry"  # noqa: S105 - of the roles of this module
WRONG = "wr0ng-c4n4ry"
RULES = """
host all postgres,limited,silent,missing 127.0.0.1/32 trust
host all asked,nobody 127.0.0.1/32 scram-sha-256
"""
ROLES = f"""
CREATE ROLE asked LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE limited LOGIN CONNECTION LIMIT 0;
CREATE ROLE silent;
CREATE ROLE excluded LOGIN;
CREATE DATABASE closed;
REVOKE CONNECT ON DATABASE closed FROM PUBLIC
"""
ASKED = {"username": "asked", "password": PASSWORD}
REFUSED = "the database refuses the password, or does not know the role"
NO_CONNECTION = "the database server has no connection left: raise its limit, or use fewer"
INVALID = "a parameter of the database URL has an invalid value"
CAUSES = {
    "wrong password": ({**ASKED, "password": WRONG}, REFUSED),
    "no password": ({**ASKED, "password": None}, REFUSED),
    "no such role, with a password": ({**ASKED, "username": "nobody"}, REFUSED),
    "no such role": ({"username": "missing"}, "the database server does not know the role"),
    "role without login": ({"username": "silent"}, "the role of the database may not log in"),
    "role outside of pg_hba.conf": (
        {"username": "excluded"},
        "the pg_hba.conf of the database server does not admit this client",
    ),
    "no such database": ({"database": "absent"}, "the database does not exist on the server"),
    "closed database": (
        {**ASKED, "database": "closed"},
        "the role may not connect to the database",
    ),
    "no connection left": ({"username": "limited"}, NO_CONNECTION),
    "no such host": (
        {"host": "no-such-host.invalid"},
        "the name of the database server does not resolve",
    ),
    "nothing listens": (
        {"port": free_port()},
        "nothing listens at the address of the database",
    ),
    "sslmode with a typo": ({"sslmode": "requre"}, INVALID),
    "another parameter with a typo": ({"target_session_attrs": "writable"}, INVALID),
    "unknown parameter": ({"sslmod": "require"}, "the database URL has an unknown parameter"),
}
PARTS = ("username", "password", "database", "host", "port")


@pytest.fixture(scope="module")
def cluster():
    """A server that asks for passwords."""
    with PostgresCluster(durable=False, in_memory=True) as server:
        engine = open_engine(server.url("postgres"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in ROLES.split(";"):
                connection.execute(sa.text(statement))
            (server.folder / "d" / "pg_hba.conf").write_text(RULES)
            connection.execute(sa.text("SELECT pg_reload_conf()"))
        yield server


@pytest.fixture
def tls_server(postgres, tmp_path):
    """A function that returns the URL of a server with TLS, verified with some roots.

    The server is a PgBouncer: the PostgreSQL of the tests is built without TLS.
    """
    authority, stranger = Authority(tmp_path), Authority(tmp_path)
    roots = {"authority": authority.file, "stranger": stranger.file, "nowhere": "/nowhere.pem"}
    pair = authority.certify(*SERVER)
    settings = {"client_tls_key_file": pair.key, "client_tls_cert_file": pair.certificate}
    with pgbouncer(postgres.url("postgres"), client_tls_sslmode="require", **settings) as url:

        def url_for(root, host):
            query = {
                "sslmode": "verify-full",
                "sslrootcert": str(roots[root]),
                "hostaddr": "127.0.0.1",
            }
            found = sa.make_url(url).set(host=host).update_query_dict(query)
            return found.render_as_string(hide_password=False)

        yield url_for


def url_of(server, parts):
    """Return the URL of a database of the server, with other parts and parameters."""
    url = sa.make_url(server.url("postgres"))
    url = url.set(**{name: value for name, value in parts.items() if name in PARTS})
    query = {name: value for name, value in parts.items() if name not in PARTS}
    return url.update_query_dict(query).render_as_string(hide_password=False)


async def assert_named(cause, url, lines: Callable[[], list[Any]], embedded=None):
    """Assert that page, log and command name the cause, and that nothing has a secret."""
    readiness, stop = Readiness(), asyncio.Event()
    waiting = asyncio.create_task(
        database_is_usable(open_engine(url), readiness, stop, embedded=embedded)
    )
    await until(lambda: readiness.problem != STARTING or waiting.done())
    await asyncio.sleep(0)  # the line is written in the next turn of the loop
    stop.set()
    assert not await waiting
    assert readiness.state().problem == cause
    (line,) = lines()
    assert (line["event"], line["problem"]) == ("not ready", cause)
    with pytest.raises(DatabaseError) as caught:
        await asyncio.to_thread(check, load(database_url=url), connect=True)
    assert str(caught.value) == f"database: {cause} ({line['cause']})"
    for secret in (PASSWORD, WRONG):
        assert secret not in f"{line}{caught.value}"


@pytest.mark.parametrize(("parts", "cause"), CAUSES.values(), ids=CAUSES)
async def test_cause_on_postgresql(cluster, lines, parts, cause):
    """Each cause of PostgreSQL has its name."""
    await assert_named(cause, url_of(cluster, parts), lines)


UNTRUSTED = "the certificate of the database server is not trusted: check sslrootcert and the host"
NO_TLS_FILE = "a TLS file that the database URL names cannot be used"


@pytest.mark.parametrize(
    ("root", "host"), [("stranger", "127.0.0.1"), ("authority", "localhost.localdomain")]
)
async def test_untrusted_certificate(tls_server, lines, root, host):
    """A certificate that is not trusted, or is that of another host, has its name."""
    cause = "the certificate of the database server is not trusted: check sslrootcert and the host"
    await assert_named(cause, tls_server(root, host), lines)


async def test_missing_root_certificate(tls_server, lines):
    """A file of roots that does not exist has its name."""
    cause = "a TLS file that the database URL names cannot be used"
    await assert_named(cause, tls_server("nowhere", "127.0.0.1"), lines)


async def test_server_without_tls(postgres, lines):
    """A server that offers no TLS is named if the URL demands it."""
    cause = "the database server does not support TLS, which sslmode in the URL demands"
    await assert_named(cause, url_of(postgres, {"sslmode": "require"}), lines)


@pytest.mark.parametrize(
    ("parts", "settings", "cause"),
    [
        ({"username": "stranger"}, {}, REFUSED),
        ({}, {"max_client_conn": "0"}, NO_CONNECTION),
        (
            {"database": "absent"},
            {"server_login_retry": "0"},
            "the database does not exist on the server",
        ),
    ],
    ids=["no such user", "no connection left", "no such database"],
)
async def test_refusal_of_pgbouncer(postgres, lines, parts, settings, cause):
    """What PgBouncer refuses has its name."""
    with pgbouncer(postgres.url("postgres"), **settings) as url:
        behind = sa.make_url(url).set(**parts).render_as_string(hide_password=False)
        await assert_named(cause, behind, lines)


async def test_server_behind_pgbouncer_is_away(postgres, lines):
    """A PgBouncer whose server is away is named, and not taken for the server."""
    away = url_of(postgres, {"port": free_port()})
    cause = (
        "a connection pooler has no connection of the server: the server is away, or the pool too"
        " small"
    )
    with pgbouncer(away, query_wait_timeout="1") as url:
        await assert_named(cause, url, lines)


def directory(path):
    """Make a folder in the place of the file."""
    path.mkdir(parents=True)


def text(path):
    """Make a file that is not a database."""
    path.parent.mkdir(parents=True)
    path.write_text("no database, but long enough to be looked at " * 50)


def no_folder(path):
    """Make a file in the place of the folder."""
    path.parent.write_text("")


NO_FILE = "the database file cannot be opened or created: it must be a file in a writable folder"


@pytest.mark.parametrize(
    ("make", "cause"),
    [(directory, NO_FILE), (text, "the database file is not one of SQLite")],
)
async def test_cause_on_sqlite(tmp_path, lines, make, cause):
    """Each cause of the embedded store has its name."""
    make(tmp_path / "new" / "milepost.db")
    url = f"sqlite:///{tmp_path}/new/milepost.db"
    with EmbeddedStore(url) as embedded:
        await assert_named(cause, url, lines, embedded)


async def test_folder_that_cannot_be_created(tmp_path, lines):
    """An embedded store whose folder cannot be created has its name."""
    no_folder(tmp_path / "new" / "milepost.db")
    url = f"sqlite:///{tmp_path}/new/milepost.db"
    with EmbeddedStore(url) as embedded:
        readiness, stop = Readiness(), asyncio.Event()
        waiting = asyncio.create_task(
            database_is_usable(open_engine(url), readiness, stop, embedded=embedded)
        )
        await until(lambda: readiness.problem == NO_FILE)
        (tmp_path / "new").unlink()  # the service goes on by itself
        assert await waiting
    assert [line["problem"] for line in lines()] == [NO_FILE]


def test_missing_folder_is_no_problem_before_the_start(tmp_path):
    """A store that does not exist yet passes the check with a warning, and is not created."""
    settings = load(database_url=f"sqlite:///{tmp_path}/new/milepost.db")
    [warning] = check(settings, connect=True)
    assert "new/milepost.db does not exist" in warning
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "new").write_text("")
    with pytest.raises(DatabaseError, match="cannot be created"):
        check(settings, connect=True)


async def test_locked_file(sqlite_url, lines, monkeypatch):
    """An embedded store that another program locks has its name."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 50)
    path = str(sa.make_url(sqlite_url).database)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        with EmbeddedStore(sqlite_url) as embedded:
            cause = "another program locks the database file"
            await assert_named(cause, sqlite_url, lines, embedded)


def test_refused_write_has_a_name(sqlite_url):
    """A file that may not be written to has its name."""
    session = Session(open_engine(sqlite_url), read_only=True)
    with pytest.raises(sqlite3.OperationalError) as caught:
        session.cursor.execute("DELETE FROM operations")
    session.reset()
    cause = "the service may not write to the database file or its folder"
    assert failure(caught.value) == cause


def test_limit_of_a_role_has_a_name(postgres_url):
    """A statement that needs more than its role may have says so; the database answers."""
    limits = "?options=-c%20temp_file_limit%3D0%20-c%20work_mem%3D64kB"
    engine = open_engine(f"{postgres_url}{limits}")
    many = sa.text("SELECT n FROM generate_series(1, 50000) AS n ORDER BY n DESC")
    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError) as caught:
        connection.execute(many)
    expected = "a limit of the server, the database or the role is exceeded: raise it"
    assert failure(caught.value) == expected


# --- Redis ---


@contextmanager
def asking_redis(folder):
    """A Redis that asks for a password."""
    with RedisServer(folder, "--requirepass", PASSWORD) as server:
        yield server


def limits_failure(sqlite_url, limits_url):
    """Return the failure of `check-config --connect` for the store of the limits."""
    settings = load(database_url=sqlite_url, limits_url=limits_url)
    with pytest.raises(DatabaseError) as caught:
        check(settings, connect=True)
    for secret in (PASSWORD, WRONG):
        assert secret not in str(caught.value)
    return str(caught.value)


def test_redis_that_cannot_be_used(tmp_path, sqlite_url):
    """Each cause of Redis has its name, and a Redis that can be used has none."""
    refused = "limits: Redis refuses the password or the user, or demands one ("
    with asking_redis(tmp_path) as redis:
        address = f"127.0.0.1:{redis.port}"
        for credential in ("", f":{WRONG}@", f"stranger:{WRONG}@"):
            found = limits_failure(sqlite_url, f"redis://{credential}{address}/0")
            assert found.startswith(refused)
        found = limits_failure(sqlite_url, f"redis://:{PASSWORD}@{address}/99")
        assert found.startswith("limits: Redis has no database of the number in the URL (")
        good = load(database_url=sqlite_url, limits_url=f"redis://:{PASSWORD}@{address}/0")
        assert check(good, connect=True) == []
    away = limits_failure(sqlite_url, f"redis://{address}/0")
    assert away.startswith("limits: nothing listens at the address of Redis (")


async def test_limits_that_are_not_shared(stores):
    """A service whose Redis is away is degraded, and says so beside its readiness."""
    readiness = Readiness()
    settings = load(limits_url=f"redis://127.0.0.1:{free_port()}/0")
    async with access_of(settings, stores.keys, lambda _: None, readiness):
        await until(lambda: bool(readiness.degraded))
        problem = "the limits are not shared: nothing listens at the address of Redis"
        assert readiness.state().degraded == {"limits": problem}


def test_every_failure_at_once():
    """The failures of the database and of Redis are reported together."""
    settings = load(
        database_url=f"postgresql+psycopg://u@127.0.0.1:{free_port()}/d",
        limits_url=f"redis://127.0.0.1:{free_port()}/0",
    )
    with pytest.raises(DatabaseError) as caught:
        check(settings, connect=True)
    assert caught.value.away
    assert str(caught.value).startswith("database: nothing listens")
    assert "; limits: nothing listens" in str(caught.value)
