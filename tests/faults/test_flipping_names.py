"""A name that flips between allowed and forbidden addresses."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import ClientError, ClientSession, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from sqlalchemy import Engine

from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.stores import Stores
from milepost.webhooks.circuit_breaker import CircuitBreaker
from milepost.webhooks.concurrency import ConcurrencyLimits
from milepost.webhooks.guard import Resolver
from milepost.webhooks.sender import Sender
from tests.dispatching import WebhookDelivery
from tests.faults.test_hostile_receivers import NAME, rules_for
from tests.name_server import NameServer
from tests.outbox import insert_due
from tests.receivers import OK, Receiver, answering
from tests.waiting import until

FLIPS = 1_000
TURNS = [
    ["127.0.0.1"],
    ["127.0.0.2"],
    ["127.0.0.1", "127.0.0.2"],
    ["127.0.0.1"],
    ["127.0.0.2", "127.0.0.1"],
    ["::1"],
    ["127.0.0.1", "::1"],
    ["127.0.0.1"] * 64 + ["127.0.0.2"],
    ["127.0.0.1", "::ffff:127.0.0.2"],
]
"""Answers in turn. Only 127.0.0.1 is allowed; A and AAAA have nine turns each."""


class Trap:
    """One allowed receiver and two forbidden ones, on the same port."""

    async def start(self) -> "Trap":
        """Start all three receivers."""
        self.allowed = await Receiver(answering(OK)).start()
        port = self.allowed.port
        self.forbidden = [
            await Receiver(answering(OK), address=address, port=port).start()
            for address in ("127.0.0.2", "::1")
        ]
        return self

    @property
    def sprung(self) -> int:
        """The number of connections to the forbidden receivers."""
        return sum(receiver.connections for receiver in self.forbidden)

    async def stop(self) -> None:
        """Stop the receivers."""
        for receiver in (self.allowed, *self.forbidden):
            await receiver.stop()


@pytest.fixture
async def trap() -> AsyncIterator[Trap]:
    """Receivers at an allowed address and at forbidden ones."""
    trap = await Trap().start()
    yield trap
    await trap.stop()


@pytest.fixture
def names() -> Iterator[NameServer]:
    """A name server whose answers change with every question."""
    with NameServer(TURNS).running() as server:
        yield server


class ResolvingTwice(AbstractResolver):
    """A faulty resolver that checks the first answer and returns the second one."""

    def __init__(self, names: NameServer) -> None:
        self._names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the second answer."""
        await asyncio.to_thread(self._names.look_up, host, port)
        found = await asyncio.to_thread(self._names.look_up, host, port)
        return [
            ResolveResult(hostname=host, host=each, port=port, family=family, proto=0, flags=0)
            for each in found
        ]

    async def close(self) -> None:
        """Do nothing: the resolver holds no resource."""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The engine of a fresh database."""
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


async def test_flipping_names(trap: Trap, names: NameServer, engine: Engine):
    """A name that flips 1,000 times never leads a delivery to a forbidden address."""
    with engine.begin() as connection:
        insert_due(connection, FLIPS, [f"http://{NAME}:{trap.allowed.port}/"])
    rules = rules_for(trap.allowed.port)
    batchers = Batchers(engine)
    stores, sender = Stores(batchers), Sender(rules, Resolver(rules, look_up=names.look_up))
    breaker = CircuitBreaker(asyncio.get_running_loop().time, failure_threshold=2 * FLIPS)
    async with WebhookDelivery(
        engine, stores, sender, limits=ConcurrencyLimits(), rules=rules, breaker=breaker
    ) as sending:
        await until(lambda: names.questions == 2 * FLIPS, patience=40)
    await sender.close()
    await batchers.close()
    assert trap.sprung == 0
    # Each outcome occurred often: allowed, refused, and no address at all.
    counts = sending.counts()
    assert counts.keys() == {"DELIVERED", "STOPPED", "EXHAUSTED"}
    assert counts["DELIVERED"] == trap.allowed.connections
    assert min(counts["DELIVERED"], counts["STOPPED"]) >= FLIPS // 10
    assert sum(counts.values()) == FLIPS
    assert names.questions == 2 * FLIPS


async def test_client_that_resolves_twice_is_caught(trap: Trap, names: NameServer):
    """A client that checks one answer and connects to the next one reaches a forbidden address."""
    async with ClientSession(
        connector=TCPConnector(
            resolver=ResolvingTwice(names), use_dns_cache=False, force_close=True
        )
    ) as session:
        for _ in range(50):
            try:
                async with session.post(f"http://{NAME}:{trap.allowed.port}/") as response:
                    await response.read()
            except (ClientError, ValueError):
                continue
    assert trap.sprung > 0
