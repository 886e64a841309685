"""All servers and databases of a run, started as far as they are needed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from milepost.storage.tables import operations
from tests.bench import plan, servers
from tests.bench.databases import STARTED, Book, postgres_on_load_core
from tests.bench.live import MEASURES
from tests.bench.peers.table import create_table, table
from tests.bench.rounds import Block, Cell, Measure
from tests.bench.subjects import (
    GrpcSubject,
    Subject,
    grpc_subject,
    http_api_subject,
    http_subject,
)
from tests.machine import free_port
from tests.postgres import PostgresCluster

_IGNORED_SECRET = f"mp_{'0' * 60}"
"""Credential for servers that ignore it, so that all headers have the same length."""
_TEMPLATE = "template"


class Fleet:
    """The servers and databases under measurement.

    Args:
        folder: for the embedded databases and the logs; should not be in memory.
        started: number of operations that reads and updates cycle over.
    """

    def __init__(self, folder: Path, started: int = STARTED) -> None:
        self._folder = folder
        self._started = started
        self._stack = ExitStack()
        self._subjects: dict[str, Subject] = {}
        self._postgres: PostgresCluster | None = None
        self._template_secret: str | None = None
        self._collector: servers.Server | None = None

    def __enter__(self) -> Self:
        """Return the fleet; nothing runs yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End everything."""
        self._stack.close()

    def blocks(self, comparisons: Sequence[plan.Comparison]) -> list[Block]:
        """Start the servers that the comparisons need; return the blocks to run."""
        self._start(
            {plan.SERVERS.get(name, name) for each in comparisons for name in each.subjects}
        )
        return [self._block(each) for each in comparisons]

    @property
    def postgres_folder(self) -> Path | None:
        """Return the data folder of PostgreSQL, if it runs."""
        return None if self._postgres is None else self._postgres.folder

    def _block(self, comparison: plan.Comparison) -> Block:
        cells = [
            Cell(
                name=name,
                measure=self._measure(name, comparison.scenario, comparison.callers),
                stretch=comparison.stretch,
            )
            for name in comparison.subjects
        ]
        return Block(name=comparison.name, cells=cells, times=comparison.times)

    def _measure(self, name: str, scenario: str, callers: int) -> Measure:
        subject = self._subjects[plan.SERVERS.get(name, name)]
        if isinstance(subject, GrpcSubject) and scenario in MEASURES and name not in plan.SERVERS:
            return partial(MEASURES[scenario], subject, callers)
        return partial(
            subject.measure, "update" if name == plan.POSTGRES_UNARY else scenario, callers
        )

    def _start(self, names: set[str]) -> None:
        makers: Mapping[str, Callable[[], Subject]] = {
            plan.ECHO: partial(self._echo, "echo"),
            plan.ECHO_AGAIN: partial(self._echo, "echo-again"),
            plan.POSTGRES: partial(self._service_on_postgres, "batching", {}),
            plan.POSTGRES_PLAIN: partial(self._service_on_postgres, "plain", servers.BATCHING_OFF),
            plan.POSTGRES_UNTRACED: partial(
                self._service_on_postgres, "untraced", servers.TRACING_OFF
            ),
            plan.POSTGRES_HTTP: self._service_over_http,
            plan.EMPTY_HTTP: self._empty_http,
            plan.SQLITE: self._service_on_sqlite,
            plan.AIOSQLITE: self._aiosqlite,
            plan.FASTAPI: self._fastapi,
        }
        for name in sorted(names):
            self._subjects[name] = makers[name]()
        for subject in self._subjects.values():
            subject.server.wait_until_listening()

    def _echo(self, name: str) -> Subject:
        server = servers.start_module("tests.bench.echo", self._log(name))
        return grpc_subject(self._stack.enter_context(server), _IGNORED_SECRET)

    def _service_on_postgres(self, name: str, settings: Mapping[str, str]) -> Subject:
        secret = self._template()
        return self._service(name, self._database(name, _TEMPLATE), secret, settings)

    def _template(self) -> str:
        """Migrate a database to be copied, with an API key; return the secret of the key."""
        if self._template_secret is None:
            url = self._database(_TEMPLATE)
            servers.migrate(url)
            self._template_secret = servers.create_key(url)
        return self._template_secret

    def _service_on_sqlite(self) -> Subject:
        url = f"sqlite:///{self._folder / 'service.db'}"
        return self._service("sqlite", url, servers.create_key(url), {})

    def _service(self, name: str, url: str, secret: str, settings: Mapping[str, str]) -> Subject:
        book = self._open(Book(url, operations), self._started)
        settings = {"MILEPOST_OTLP_ENDPOINT": self._otlp_endpoint(), **settings}
        server = servers.start_service(url, self._log(f"service-{name}"), settings)
        return grpc_subject(self._stack.enter_context(server), secret, book)

    def _service_over_http(self) -> Subject:
        secret, port = self._template(), free_port()
        url = self._database("http", _TEMPLATE)
        book = self._open(Book(url, operations), self._started)
        settings = {"MILEPOST_OTLP_ENDPOINT": self._otlp_endpoint()}
        server = servers.start_service(url, self._log("service-http"), settings, http_port=port)
        return http_api_subject(self._stack.enter_context(server), secret, book, port)

    def _empty_http(self) -> Subject:
        server = servers.start_module("tests.bench.empty_http", self._log("empty-http"))
        return http_api_subject(self._stack.enter_context(server), _IGNORED_SECRET)

    def _otlp_endpoint(self) -> str:
        if self._collector is None:
            collector = servers.start_collector(self._log("collector"))
            self._collector = self._stack.enter_context(collector)
            collector.wait_until_listening()
        return f"http://127.0.0.1:{self._collector.port}"

    def _aiosqlite(self) -> Subject:
        path = self._folder / "peer.db"
        book = self._book_of_peer(f"sqlite:///{path}", self._started)
        log = self._log("aiosqlite")
        server = servers.start_module("tests.bench.peers.aiosqlite_server", log, str(path))
        return grpc_subject(self._stack.enter_context(server), _IGNORED_SECRET, book)

    def _fastapi(self) -> Subject:
        url = self._database("fastapi")
        book = self._book_of_peer(url, 0)
        address = sa.make_url(url).set(drivername="postgresql+asyncpg")
        server = servers.start_module(
            "tests.bench.peers.naive_fastapi",
            self._log("fastapi"),
            address.render_as_string(hide_password=False),
        )
        return http_subject(self._stack.enter_context(server), book)

    def _book_of_peer(self, url: str, started: int) -> Book:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        create_table(engine)
        engine.dispose()
        return self._open(Book(url, table), started)

    def _open(self, book: Book, started: int) -> Book:
        self._stack.callback(book.close)
        if started:
            book.open(started)
        return book

    def _database(self, name: str, template: str | None = None) -> str:
        if self._postgres is None:
            self._postgres = self._stack.enter_context(postgres_on_load_core())
        self._postgres.create_database(name, template)
        return self._postgres.url(name)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"
