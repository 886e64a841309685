"""The duration of each call beside few and beside many operations: `python -m tests.bench.size`.

Two services on one PostgreSQL serve the same calls. Their databases have the same content but for
its size: one owner has 2 % of the operations, and every filter of a list finds enough in both.
A tenth is the work of 20 owners, of every priority; half of it waits for its next attempt.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from google.protobuf import duration_pb2
from rich.console import Console
from rich.table import Table

from milepost.gen.milepost.v1 import operation_pb2 as pb
from milepost.storage.schema import upgrade
from milepost.storage.tables import deliveries, operations
from tests.e2e.client import Client
from tests.e2e.rpcs import BROKEN
from tests.e2e.service import Service
from tests.postgres import PostgresCluster

FEW: Final = 10_000
MANY: Final = 5_000_000
ROUNDS: Final = 150
WARM_UP: Final = 20
"""Rounds that are not counted: statements are prepared, and pages are read from the disk."""
MAX_RATIO: Final = 1.3
PAGE: Final = 4
"""Operations of one page: every list has as many, also among few."""
OWNER: Final = "busy"
AT_ONCE: Final = duration_pb2.Duration()
FUNCTIONS: Final = 50
_TABLES: Final = (operations, deliveries)
"""The tables whose indexes are built afterwards; those of the events belong to partitions."""
_SETTINGS: Final = {"shared_buffers": "512MB", "max_wal_size": "8GB", "maintenance_work_mem": "1GB"}

_NUMBERED: Final = """
    CREATE TEMPORARY TABLE numbered AS
    SELECT n, 'op_' || substr(md5(n::text), 1, 24) AS id,
        CASE WHEN n % 50 = 0 THEN 'busy' WHEN n % 10 = 7 THEN 'queue-' || n / 10 % 20
            ELSE 'owner-' || n % 1009 END AS owner,
        CASE WHEN n % 500 = 0 THEN 'rare' WHEN n % 100 = 50 THEN 'function-0'
            WHEN n % 10 = 7 THEN 'work' ELSE 'function-' || n / 3 % 50 END AS function,
        CASE WHEN n % 10 = 7 THEN 'PENDING' ELSE
            (ARRAY['PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED'])[1 + n / 500 % 5]
            END AS status,
        CASE WHEN n % 10 = 7 THEN n / 200 % 10 ELSE 5 END AS priority,
        CASE WHEN n % 10 = 7 AND n / 2000 % 2 = 0
            THEN timestamptz '2099-01-01 00:00:00+00' + n * interval '1 second' END
            AS next_attempt_time,
        timestamptz '2026-01-01 00:00:00+00' + n * interval '1 second' AS time
    FROM generate_series(1, :count) AS n
"""
_FILL: Final = (
    """
    INSERT INTO operations (id, function, owner, status, progress, errors, metadata, create_time,
        start_time, complete_time, cancel_time, expire_time, ttl, retry_after, revision, attempt,
        max_attempts, fingerprint, priority, next_attempt_time, initial_backoff, backoff,
        max_backoff, backoff_multiplier)
    SELECT id, function, owner, status, CASE status WHEN 'COMPLETED' THEN 1.0 END,
        CASE status WHEN 'FAILED' THEN '[]' END, '{"number": 1}', time,
        CASE WHEN status IN ('PROCESSING', 'COMPLETED') THEN time END,
        CASE WHEN status IN ('COMPLETED', 'FAILED') THEN time END,
        CASE status WHEN 'CANCELLED' THEN time END,
        '2200-01-01 00:00:00+00', '1 day', '5 s', 1, 0, 3, 'v1', priority, next_attempt_time,
        '1 s', '1 s', '5 min', 2
    FROM numbered
    """,
    """
    INSERT INTO events (operation_id, revision, type, transition, owner, actor, time)
    SELECT id, 1, 'operation.created', 'create', owner, owner, time
    FROM numbered
    """,
    """
    INSERT INTO deliveries (id, operation_id, revision, type, owner, callback_url, create_time,
        status, settle_time)
    SELECT 'msg_' || n, id, 1, 'operation.created', owner, 'https://example.com/', time,
        'DELIVERED', time
    FROM numbered WHERE owner = 'busy'
    """,
)


def fill(url: str, count: int) -> None:
    """Insert `count` operations with their events; the indexes are built afterwards."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        for table in _TABLES:
            for index in table.indexes:
                index.drop(connection)
            connection.execute(
                sa.text(f"ALTER TABLE {table.name} DROP CONSTRAINT {table.name}_pkey")
            )
        for statement in (_NUMBERED, *_FILL):
            connection.execute(sa.text(statement), {"count": count})
        for table in _TABLES:
            key = ", ".join(column.name for column in table.primary_key)
            connection.execute(sa.text(f"ALTER TABLE {table.name} ADD PRIMARY KEY ({key})"))
            for index in table.indexes:
                index.create(connection)
            connection.execute(sa.text(f"VACUUM (ANALYZE) {table.name}"))
        connection.execute(sa.text("VACUUM (ANALYZE) events_default"))
        connection.execute(sa.text("CHECKPOINT"))


class Callers(NamedTuple):
    """The clients of one service, with the ids of its stored operations."""

    owner: Client
    """Owner of 2 % of the operations."""
    writer: Client
    """Owner of those that are changed."""
    admin: Client
    worker: Client
    ids: Sequence[str]


def callers(service: Service, count: int) -> Callers:
    """Return the clients of a service with `count` operations."""
    subjects = {"owner": OWNER, "writer": "writer", "admin": "root", "worker": "wally"}
    roles = {
        "owner": ("CALLER",),
        "writer": ("CALLER", "WORKER"),
        "admin": ("ADMIN",),
        "worker": ("WORKER",),
    }
    clients = {
        name: Client(
            service.channel,
            subjects[name],
            frozenset(found),
            service.api_key(subjects[name], found, ("*",) if "WORKER" in found else ()),
        )
        for name, found in roles.items()
    }
    with service.engine.connect() as connection:
        query = sa.select(operations.c.id).where(operations.c.owner == OWNER).limit(100)
        ids = list(connection.scalars(query))
    assert count >= len(ids) > 0
    return Callers(**clients, ids=ids)


def _lists() -> Mapping[str, dict[str, Any]]:
    """Return every combination of filters of an owner, without and with those of an admin."""
    two = [pb.OPERATION_STATUS_PENDING, pb.OPERATION_STATUS_FAILED]
    statuses = {"": {}, ", status": {"statuses": two[:1]}, ", statuses": {"statuses": two}}
    functions = {
        "": {},
        ", function": {"function": "function-0"},
        ", rare function": {"function": "rare"},
    }
    return {
        f"{function}{status}": {**functions[function], **statuses[status]}
        for function in functions
        for status in statuses
    }


Call = tuple[str, Callable[[], object]]


def calls(by: Callers, number: int) -> Iterator[Call]:
    """Return each call once, with its name. A write creates its own operation before."""
    owner, admin, some = by.owner, by.admin, random.choice(by.ids)
    yield "GetOperation", partial(owner.get, some)
    yield "WaitOperation", partial(owner.call, "WaitOperation", operation_id=some, timeout=AT_ONCE)
    yield "WatchOperation", lambda: next(owner.watch(owner.channel, some))
    for name, filters in _lists().items():
        page = {"page_size": PAGE, **filters}
        yield f"ListOperations owner{name}", partial(owner.call, "ListOperations", **page)
        yield f"ListOperations admin{name}", partial(admin.call, "ListOperations", **page)
    for name, filters in (("", {}), (" of one", {"operation_id": some})):
        page = {"page_size": PAGE, **filters}
        yield f"ListDeliveries{name}", partial(owner.call, "ListDeliveries", **page)
    yield "PurgeExpiredOperations", partial(admin.call, "PurgeExpiredOperations", dry_run=True)
    yield "CreateOperation", partial(by.writer.create, function="bench")
    yield from _transitions(by.writer)
    for name, function in (("", "work"), (" of many owners", f"function-{number % FUNCTIONS}")):
        claim = {"functions": [function], "timeout": AT_ONCE}
        yield f"ClaimOperations{name}", partial(by.worker.call, "ClaimOperations", **claim)


def _transitions(writer: Client) -> Iterator[Call]:
    for method, status, fields in (
        ("StartOperation", "PENDING", {}),
        ("UpdateProgress", "PROCESSING", {"progress": 0.5}),
        ("CompleteOperation", "PROCESSING", {}),
        ("FailOperation", "PROCESSING", {"errors": [BROKEN]}),
        ("CancelOperation", "PENDING", {}),
        ("DeleteOperation", "CANCELLED", {}),
    ):
        fresh = writer.create_in(status, function="bench")
        yield method, partial(writer.call, method, operation_id=fresh.id, **fields)


class Line(NamedTuple):
    """The medians of one call, in milliseconds."""

    name: str
    few: float
    many: float

    @property
    def ratio(self) -> float:
        """How many times as long the call takes beside many operations."""
        return self.many / self.few


def measure(few: Callers, many: Callers, rounds: int, warm_up: int) -> list[Line]:
    """Make each call beside few and beside many operations, in random order."""
    took: dict[tuple[str, int], list[float]] = defaultdict(list)
    for number in range(warm_up + rounds):
        pairs = list(zip(calls(few, number), calls(many, number), strict=True))
        random.shuffle(pairs)
        for pair in pairs:
            # Whichever comes second finds the caches of the processor warm.
            for is_many in random.sample((0, 1), 2):
                name, call = pair[is_many]
                begun = time.perf_counter()
                call()
                if number >= warm_up:
                    took[name, is_many].append((time.perf_counter() - begun) * 1000)
    names = dict.fromkeys(name for name, _ in took)
    return [
        Line(name, statistics.median(took[name, 0]), statistics.median(took[name, 1]))
        for name in sorted(names)
    ]


def run(few: int, many: int, rounds: int, warm_up: int = WARM_UP) -> list[Line]:
    """Fill two databases and measure every call on both."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(PostgresCluster(durable=False, settings=_SETTINGS))
        found: list[Callers] = []
        for name, count in (("few", few), ("many", many)):
            cluster.create_database(name)
            upgrade(cluster.url(name))
            fill(cluster.url(name), count)
            service = stack.enter_context(Service(cluster.url(name), folder, forked=False))
            found.append(callers(service, count))
        return measure(found[0], found[1], rounds, warm_up)


def main() -> int:
    """Measure, print the table, and return 1 if a call is slower beside many operations."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.size", description=__doc__)
    parser.add_argument("--few", type=int, default=FEW)
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    lines = run(arguments.few, arguments.many, arguments.rounds)
    table = Table(title=f"median ms beside {arguments.few:,} and {arguments.many:,} operations")
    for heading in ("call", "few", "many", "ratio"):
        table.add_column(heading, justify="left" if heading == "call" else "right", no_wrap=True)
    for line in sorted(lines, key=lambda line: -line.ratio):
        table.add_row(line.name, f"{line.few:.2f}", f"{line.many:.2f}", f"{line.ratio:.2f}")
    Console(width=100).print(table)
    return 1 if any(line.ratio > MAX_RATIO for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
