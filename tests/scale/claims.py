"""Claims at the limits: `python -m tests.scale.claims`.

Measured are a claim of 100 functions, a claim of the work of one owner beside few and beside many
pending operations, and 500 workers of 100 functions that ask at once. The first two are CPU times
of the replica's store and of its PostgreSQL session together; the third are calls to a service.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

import grpc
import sqlalchemy as sa
from google.protobuf import duration_pb2
from rich.console import Console

from milepost.domain.claim import ClaimRequest
from milepost.storage.batchers import Batchers, alone
from milepost.storage.engine import open_engine
from milepost.storage.schema import upgrade
from milepost.storage.stores import Stores
from milepost.storage.work import SqlWorkStore
from tests.e2e.client import Client
from tests.e2e.service import Service
from tests.postgres import PostgresCluster
from tests.scale.cpu import cpu_seconds
from tests.scale.figures import Figure, table

FUNCTIONS: Final = tuple(f"function-{n:03}" for n in range(100))
FEW: Final = 1_000
MANY: Final = 1_000_000
CLAIMED: Final = 90_000
"""Operations that are claimed before the last measurement of the owner with many."""
WORKERS: Final = 500
ROUNDS: Final = 60
WARM_UP: Final = 5
"""Claims that are not counted: statements are prepared, and pages are read from the disk."""
MAX_CLAIM_MS: Final = 3.0
MAX_RATIO: Final = 1.3
SETTINGS: Final = {"shared_buffers": "512MB", "max_wal_size": "8GB"}
AT_ONCE: Final = duration_pb2.Duration()
_FILL: Final = """
    INSERT INTO operations (id, function, owner, status, create_time, expire_time, ttl, retry_after,
        revision, attempt, max_attempts, fingerprint, priority, initial_backoff, backoff,
        max_backoff, backoff_multiplier)
    SELECT 'op_' || substr(md5(n || :owner), 1, 24),
        :function || lpad((n % :functions)::text, 3, '0'),
        :owner || n / :functions % :owners, 'PENDING',
        timestamptz '2026-01-01 00:00:00+00' + n * interval '1 millisecond',
        '2200-01-01 00:00:00+00', '1 day', '5 s', 1, 0, 3, 'v1', 5, '1 s', '1 s', '5 min', 2
    FROM generate_series(1, :count) AS n
"""


def fill(url: str, count: int, *, owner: str, owners: int = 1, functions: int = 1) -> None:
    """Insert pending operations of some owners for each of the first functions."""
    values = {"count": count, "owner": owner, "owners": owners, "functions": functions}
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(_FILL), {**values, "function": "function-"})
        connection.execute(sa.text("VACUUM (ANALYZE) operations"))
        connection.execute(sa.text("CHECKPOINT"))


@contextmanager
def database(cluster: PostgresCluster, name: str) -> Iterator[str]:
    """Provide the URL of an empty database."""
    cluster.create_database(name)
    upgrade(cluster.url(name))
    yield cluster.url(name)
    cluster.drop_database(name)


class Replica(NamedTuple):
    """The store of pending work of a replica, with the id of the process that runs its claims."""

    work: SqlWorkStore
    backend: int

    async def milliseconds(self, claim: ClaimRequest) -> float:
        """Return the CPU time of a claim, here and in its PostgreSQL process."""
        begun, served = time.process_time(), cpu_seconds(self.backend)
        claimed = await self.work.claim(claim)
        taken = time.process_time() - begun + cpu_seconds(self.backend) - served
        assert len(claimed) in {0, claim.max_operations}, f"{len(claimed)} operations claimed"
        return taken * 1000


@asynccontextmanager
async def replica_of(url: str) -> AsyncIterator[Replica]:
    """Provide a replica on a database of PostgreSQL."""
    engine = open_engine(url)
    batchers = Batchers(engine)
    query = sa.select(sa.func.pg_backend_pid())
    run = alone(lambda session: session.fetch(query)[0][0])
    yield Replica(Stores(batchers).work, await batchers.claims.submit(run, None, object()))
    await batchers.close()
    engine.dispose()


def claim_of(functions: Sequence[str], max_operations: int) -> ClaimRequest:
    """Return the claim of a worker."""
    return ClaimRequest(
        functions=tuple(functions),
        max_operations=max_operations,
        max_bytes=3_000_000,
        lease=timedelta(hours=1),
        actor="wally",
        worker="wally-1",
    )


async def hundred_functions(url: str, rounds: int) -> list[Figure]:
    """Measure a claim of 100 functions, without work and with work of 10 owners for each."""
    lines = []
    async with replica_of(url) as replica:
        for name, count in (("idle", 1), ("for 1 operation", 1), ("for 10 operations", 10)):
            claim = claim_of(FUNCTIONS, count)
            taken = [await replica.milliseconds(claim) for _ in range(WARM_UP + rounds)]
            median = statistics.median(taken[WARM_UP:])
            title = f"claim of 100 functions, {name}"
            lines.append(Figure(title, median, "ms", at_most=MAX_CLAIM_MS))
            if name == "idle":
                fill(url, 30_000, owner="o", owners=10, functions=len(FUNCTIONS))
    return lines


async def one_owner(few: str, many: str, *, claimed: int, rounds: int) -> list[Figure]:
    """Measure claims of one owner beside few and beside many operations, in turn."""
    claim = claim_of(FUNCTIONS[:1], 10)
    large = claim_of(FUNCTIONS[:1], 100)
    async with replica_of(few) as beside_few, replica_of(many) as beside_many:
        before = await _paired(beside_few, beside_many, claim, rounds)
        for _ in range(claimed // large.max_operations):
            await beside_many.work.claim(large)
        after = await _paired(beside_few, beside_many, claim, rounds)
    # What was claimed since the last vacuum stays in the index: that has no target.
    names = {"": MAX_RATIO, f" after {claimed:,} claimed": None}
    return [
        line
        for (name, maximum), (small, big) in zip(names.items(), (before, after), strict=True)
        for line in (
            Figure(f"claim of one owner beside few{name}", small, "ms"),
            Figure(f"claim of one owner beside many{name}", big, "ms"),
            Figure(f"many to few{name}", big / small, "x", at_most=maximum),
        )
    ]


async def _paired(
    few: Replica, many: Replica, claim: ClaimRequest, rounds: int
) -> tuple[float, float]:
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP + rounds):
        for is_many in (0, 1) if number % 2 else (1, 0):
            milliseconds = await (few, many)[is_many].milliseconds(claim)
            if number >= WARM_UP:
                taken[is_many].append(milliseconds)
    return statistics.median(taken[0]), statistics.median(taken[1])


def burst(service: Service, workers: int, name: str) -> list[Figure]:
    """Let workers of 100 functions ask at once; count those that are refused."""
    key = service.api_key("wally", ("WORKER",), ("*",))
    client = Client(service.channel, "wally", frozenset({"WORKER"}), key)
    client.call("ClaimOperations", functions=FUNCTIONS[:1], timeout=AT_ONCE)  # connects
    begun = time.perf_counter()
    calls = [
        client.future("ClaimOperations", functions=FUNCTIONS, timeout=AT_ONCE, worker=f"w-{number}")
        for number in range(workers)
    ]
    codes = Counter[grpc.StatusCode](call.code() for call in calls)
    seconds = time.perf_counter() - begun
    claimed = sum(len(call.result().operations) for call in calls if call.code() is _OK)
    title = f"{workers} workers at once, {name}"
    return [
        Figure(f"{title}: refused", workers - codes[_OK], "calls", at_most=0),
        Figure(f"{title}: all answered", seconds * 1000, "ms"),
        Figure(f"{title}: operations claimed", claimed),
    ]


_OK: Final = grpc.StatusCode.OK


def run(
    *,
    few: int = FEW,
    many: int = MANY,
    claimed: int = CLAIMED,
    workers: int = WORKERS,
    rounds: int = ROUNDS,
    durable: bool = False,
) -> list[Figure]:
    """Measure everything on a PostgreSQL of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(PostgresCluster(durable=durable, settings=SETTINGS))
        urls = [stack.enter_context(database(cluster, name)) for name in ("a", "b", "c", "d")]
        fill(urls[1], few, owner="busy")
        fill(urls[2], many, owner="busy")
        lines = asyncio.run(hundred_functions(urls[0], rounds))
        lines += asyncio.run(one_owner(urls[1], urls[2], claimed=claimed, rounds=rounds // 2))
        with Service(urls[3], folder, forked=False) as service:
            lines += burst(service, workers, "idle")
            fill(urls[3], 2 * workers, owner="o", owners=10, functions=len(FUNCTIONS))
            lines += burst(service, workers, "with work")
        return lines


def figures() -> list[Figure]:
    """Measure at the size of the targets, for the table of all measurements."""
    return run()


def main() -> int:
    """Measure, print the table, and return 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale.claims", description=__doc__)
    for name, default in (
        ("few", FEW),
        ("many", MANY),
        ("claimed", CLAIMED),
        ("workers", WORKERS),
        ("rounds", ROUNDS),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--durable", action="store_true", help="wait for the disk")
    lines = run(**vars(parser.parse_args()))
    Console(width=120).print(table("claims", lines))
    return 1 if any(line.is_missed for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
