"""The subjects of a comparison, and one measurement of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol

from tests.bench import http1, load
from tests.bench.databases import Book
from tests.bench.jobs import Caller, Connection, Source, Tally, drive
from tests.bench.messages import ECHO_ID
from tests.bench.rounds import Reading
from tests.bench.scenarios import EchoStock, GrpcScenarios, HttpApiScenarios, HttpScenarios
from tests.bench.servers import Server

_COMPLETES_PER_SECOND = 9_000
"""Operations per second, above the rate of any measured server."""


class Scenarios(Protocol):
    """The jobs that the callers of a server may do."""

    def source(self, name: str) -> Source:
        """Return the source of jobs called `name`."""


Connect = Callable[[int, Sequence[Caller]], list[Connection]]


@dataclass(slots=True, kw_only=True)
class Subject:
    """One server with its database, if it has one."""

    server: Server
    scenarios: Scenarios
    connect: Connect
    book: Book | None = None
    port: int | None = None
    """The port that is called, if it is not the first one of the server."""

    def measure(self, scenario: str, callers: int, seconds: float) -> Reading:
        """Let `callers` do the jobs of `scenario` for `seconds`."""
        if self.book is not None and scenario == "complete":
            self.book.stock(ceil(_COMPLETES_PER_SECOND * seconds) + callers)
        source = self.scenarios.source(scenario)
        tally = Tally()
        connections = self.connect(
            self.port or self.server.port, [Caller(source, tally) for _ in range(callers)]
        )
        return self.driven(connections, tally, seconds)

    def driven(self, connections: list[Connection], tally: Tally, seconds: float) -> Reading:
        """Drive the connections for `seconds`; return the counts and the growth of revisions."""
        before = 0 if self.book is None else self.book.revisions()
        try:
            spent = self.server.cpu_seconds()
            drive(connections, tally, seconds)
            spent = self.server.cpu_seconds() - spent
        finally:
            load.close(connections)
        grown = None if self.book is None else self.book.revisions() - before
        return Reading(tally, grown, spent)


@dataclass(slots=True, kw_only=True)
class GrpcSubject(Subject):
    """A server with the gRPC API of the service."""

    scenarios: GrpcScenarios

    def take(self, count: int) -> list[str]:
        """Return unused operations in PROCESSING; any ids for an echo server."""
        if self.book is None:
            return [ECHO_ID, *(f"op_{number:024x}" for number in range(1, count))]
        self.book.stock(count)
        return [self.book.take() for _ in range(count)]


def grpc_subject(server: Server, secret: str, book: Book | None = None) -> GrpcSubject:
    """A server with the gRPC API of the service."""
    scenarios = GrpcScenarios(secret, EchoStock() if book is None else book)
    return GrpcSubject(server=server, scenarios=scenarios, connect=load.connect, book=book)


def http_api_subject(
    server: Server, secret: str, book: Book | None = None, port: int | None = None
) -> Subject:
    """Return a server with the API of the service over HTTP."""
    scenarios = HttpApiScenarios(secret, EchoStock() if book is None else book)
    return Subject(server=server, scenarios=scenarios, connect=http1.connect, book=book, port=port)


def http_subject(server: Server, book: Book) -> Subject:
    """Return the peer with JSON over HTTP."""
    return Subject(server=server, scenarios=HttpScenarios(), connect=http1.connect, book=book)
