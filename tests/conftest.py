"""Databases for the tests: a fresh one for each, copied from a migrated template."""

import gc
import json
import os
import shutil
import signal
import sqlite3
import sys
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog

from milepost import telemetry
from tests import monitoring, pgbouncer, prometheus, proxies, redis
from tests.canaries import CANARIES
from tests.e2e.lro import programs
from tests.jaeger import server as jaeger
from tests.postgres import URL_VARIABLE, PostgresCluster, PostgresServer
from tests.postgres_binaries import OLDEST, memory_root
from tests.programs import CURL

_COPIES_AHEAD = 2
_CLUSTER = pytest.StashKey[PostgresCluster]()


# The tests start hundreds of processes that import the same modules. Where the environment forbids
# to keep the compiled ones, each of them would compile all of these anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


# A shell that runs the tests in its background makes them and their processes ignore SIGINT. A
# process that a test interrupts must be as interruptible as on a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)


# The files of the tests stand in memory, where that has room: a disk that other programs keep busy
# holds up the commits of SQLite for seconds.
if (_memory := memory_root()) is not None:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_memory))


def pytest_report_header() -> list[str]:
    """Say which optional programs the tests of this run use."""
    pooler = pgbouncer.PROGRAM.path()
    return [
        f"proxies: {proxies.report()}",
        f"pgbouncer: {pooler or 'not installed, the service behind it is UNTESTED'}",
        f"PostgreSQL 15: {OLDEST.path() or 'not installed, the service on it is UNTESTED'}",
        f"redis: {redis.EXECUTABLE}",
        f"promtool: {monitoring.PROMTOOL.path() or 'not installed, the alert rules are UNTESTED'}",
        f"schema of Grafana: {monitoring.SCHEMA_CHECK.path() or 'not built, it is UNTESTED'}",
        f"prometheus: {prometheus.PROGRAM.path() or 'not installed, the dashboard is UNTESTED'}",
        f"Jaeger: {jaeger.PROGRAM.path() or 'not built, the life of operations in it is UNTESTED'}",
        f"clients of google.longrunning: {', '.join(programs.languages())}",
        f"curl: {CURL.path() or 'not installed, its example is UNTESTED'}",
    ]


def pytest_collection_finish() -> None:
    """Exclude the collected tests from garbage collection, which would traverse them in vain."""
    gc.collect()
    gc.freeze()


def prepare_template(url: str) -> None:
    """Migrate the database at `url` to the newest schema, and close every connection to it.

    On PostgreSQL events have the partitions of these days, as beside a running service.
    """
    # Imported here, because most unit tests need no storage.
    from milepost.storage.schema import upgrade  # noqa: PLC0415
    from tests.event_days import keep_event_days  # noqa: PLC0415

    upgrade(url)
    keep_event_days(url)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Add the log of PostgreSQL to the report of a failed test: it is deleted with the server."""
    report = yield
    cluster = item.config.stash.get(_CLUSTER, None)
    if report.failed and cluster is not None:
        report.sections.append(("the log of PostgreSQL", cluster.log()))
    return report


@pytest.fixture(scope="session", autouse=True)
def no_canary_gets_out() -> Iterator[None]:
    """Assert after the session that no service leaked a guarded secret."""
    yield
    assert CANARIES.leaks() == []


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """Return the PostgreSQL server that the environment names, or one of this session.

    Without one its tests fail; they are never skipped.
    """
    url = os.environ.get(URL_VARIABLE)
    if url:
        yield PostgresServer(url)
        return
    with PostgresCluster(durable=False, in_memory=True) as cluster:
        pytestconfig.stash[_CLUSTER] = cluster
        yield cluster
        del pytestconfig.stash[_CLUSTER]


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> Iterator[str]:
    """The name of a migrated PostgreSQL database, to be copied."""
    name = _fresh_name("template")
    postgres.create_database(name)
    try:
        prepare_template(postgres.url(name))
        yield name
    finally:
        postgres.drop_database(name)


class _Copies:
    """Copies of a database, created and dropped in the background of the tests."""

    def __init__(self, server: PostgresServer, template: str) -> None:
        self._server = server
        self._template = template
        self._workers = ThreadPoolExecutor(max_workers=_COPIES_AHEAD)
        self._ready = deque(self._workers.submit(self._make) for _ in range(_COPIES_AHEAD))

    def take(self) -> str:
        """Return the name of a fresh copy."""
        self._ready.append(self._workers.submit(self._make))
        return self._ready.popleft().result()

    def drop(self, name: str) -> None:
        """Release the copy."""
        self._workers.submit(self._server.drop_database, name)

    def close(self) -> None:
        """Drop all copies."""
        for copy in self._ready:
            self.drop(copy.result())
        self._workers.shutdown()

    def _make(self) -> str:
        name = _fresh_name("test")
        self._server.create_database(name, template=self._template)
        return name


@pytest.fixture(scope="session")
def postgres_copies(postgres: PostgresServer, postgres_template: str) -> Iterator[_Copies]:
    """Fresh, migrated PostgreSQL databases."""
    copies = _Copies(postgres, postgres_template)
    yield copies
    copies.close()


@pytest.fixture
def postgres_url(postgres: PostgresServer, postgres_copies: _Copies) -> Iterator[str]:
    """The URL of a fresh, migrated PostgreSQL database."""
    name = postgres_copies.take()
    yield postgres.url(name)
    postgres_copies.drop(name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("template") / "milepost.db"
    prepare_template(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        # Everything is in the one file that gets copied, nothing in a write-ahead log beside it.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a fresh, migrated SQLite file."""
    return f"sqlite:///{shutil.copyfile(sqlite_template, tmp_path / 'milepost.db')}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, migrated database: the test runs on each kind, without exclusions."""
    fixtures = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}
    url: str = request.getfixturevalue(fixtures[request.param])
    return url


def _fresh_name(kind: str) -> str:
    return f"milepost_{kind}_{uuid.uuid4().hex}"


@pytest.fixture
def lines(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], list[Mapping[str, Any]]]]:
    """A function that returns the lines of the log since its last call."""
    before = structlog.get_config()
    telemetry.configure_logs(level="info", as_json=True)
    # A stream bound to this stderr.
    monkeypatch.setattr(telemetry.audit, "log", structlog.get_logger())
    yield lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    structlog.configure(**before)
