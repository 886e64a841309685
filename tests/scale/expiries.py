"""A million operations that expire at once: `python -m tests.scale.expiries`.

One service on one PostgreSQL, on the core of the service and on that of the load. Callers create,
read and complete operations at a steady pace, first while nothing is due, then while the sweeper
purges. Measured are the time until the last expired operation is gone, and the 99th percentile of
the callers in both phases. Beside it: a day of events is deleted row by row, and dropped.
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
import sqlalchemy as sa
from rich.console import Console

from milepost.storage import event_days
from milepost.storage.engine import open_engine
from milepost.storage.schema import upgrade
from milepost.storage.session import Session
from milepost.storage.sweeps import purge_events_statement
from tests.bench.cores import LOAD_CORE, SERVER_CORE, pin, running_on
from tests.bench.databases import postgres_on_load_core
from tests.e2e.client import Client
from tests.e2e.service import Service
from tests.event_days import keep_event_days, make_past_day
from tests.postgres import PostgresCluster
from tests.scale.cpu import cpu_seconds
from tests.scale.figures import Figure, table

EXPIRIES: Final = "expiries"
RETENTION: Final = "retention"
OPERATIONS: Final = 1_000_000
SECONDS: Final = 20.0
"""Length of the phase in which nothing is due."""
WARM_UP_S: Final = 5.0
LOOK_S: Final = 0.5
CALLERS: Final = 8
PACE_S: Final = 0.1
"""Time from the begin of one life of an operation to that of the next, for each caller."""
MAX_SECONDS: Final = 60.0
MAX_RATIO: Final = 1.5
EVENTS_PER_OPERATION: Final = 4
KEPT: Final = timedelta(days=7)
OLD: Final = timedelta(days=10)
_FILL: Final = """
    INSERT INTO operations (id, function, owner, status, progress, create_time, start_time,
        complete_time, expire_time, ttl, retry_after, revision, attempt, max_attempts, fingerprint,
        initial_backoff, backoff, max_backoff, backoff_multiplier)
    SELECT 'op_' || substr(md5(n::text), 1, 24), 'scale', 'owner-' || n % 1009, 'COMPLETED', 1.0,
        now(), now(), now(), now(), '1 day', '5 s', 3, 1, 3, 'v1', '1 s', '1 s', '5 min', 2
    FROM generate_series(1, :count) AS n
"""
_EVENTS: Final = """
    INSERT INTO events (operation_id, revision, type, transition, owner, actor, time)
    SELECT 'op_' || substr(md5((n / :each)::text), 1, 24), n % :each + 1, 'operation.expired',
        CASE n % :each WHEN :each - 1 THEN 'purge' ELSE 'start' END, 'owner', 'owner', :time
    FROM generate_series(0, CAST(:count AS integer) * :each - 1) AS n
"""


def execute(url: str, *statements: str, **values: object) -> None:
    """Run statements with these values, each in its own transaction."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(sa.text(statement), values)


class Foreground:
    """Callers that live through operations at a steady pace, and how long each call took."""

    def __init__(self, service: Service, callers: int) -> None:
        key = service.api_key("busy", ("CALLER", "WORKER"), ("*",))
        self._client = Client(service.channel, "busy", frozenset({"CALLER", "WORKER"}), key)
        self._callers = callers
        self._ended = threading.Event()
        self.taken: list[float] = []
        self.refused = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Call inside of the context."""
        with ThreadPoolExecutor(self._callers) as threads:
            calls = [threads.submit(self._call, n / self._callers) for n in range(self._callers)]
            try:
                yield
            finally:
                self._ended.set()
            for each in calls:
                each.result()

    def phase(self) -> list[float]:
        """Return the durations since the last phase, in milliseconds."""
        taken, self.taken = self.taken, []
        return [each * 1000 for each in taken]

    def _call(self, share: float) -> None:
        due = time.monotonic() + share * PACE_S
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            due = max(due + PACE_S, time.monotonic())
            try:
                self._live()
            except grpc.RpcError:
                self.refused += 1

    def _live(self) -> None:
        id_ = self._timed("CreateOperation", function="scale").operation.id
        for method in ("StartOperation", "GetOperation", "CompleteOperation"):
            self._timed(method, operation_id=id_)

    def _timed(self, method: str, **fields: object) -> Any:
        begun = time.perf_counter()
        answer = self._client.call(method, **fields)
        self.taken.append(time.perf_counter() - begun)
        return answer


def p99(milliseconds: list[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(milliseconds, n=100, method="inclusive")[98]


def cpu_of_children(pid: int) -> float:
    """Return the CPU time so far of the processes that a PostgreSQL server runs now."""
    return sum(cpu_seconds(each.pid) for each in psutil.Process(pid).children())


def expiries(
    cluster: PostgresCluster, folder: Path, *, count: int, seconds: float, callers: int
) -> list[Figure]:
    """Let callers go on while operations are purged that are all due when the sweeper begins."""
    url = cluster.url(EXPIRIES)
    execute(url, _FILL, "VACUUM (ANALYZE) operations", "CHECKPOINT", count=count)
    # The first cleanup begins after one pause. The passes after it must not wait for another one.
    pause = WARM_UP_S + seconds
    with Service(
        url, folder, forked=False, cleanup_seconds=str(pause), log_level="warning"
    ) as service:
        begin = time.monotonic() + pause
        assert service.process is not None
        pid = service.process.pid
        pin(pid, SERVER_CORE)
        foreground = Foreground(service, callers)
        with foreground.running():
            time.sleep(WARM_UP_S)
            foreground.phase()
            time.sleep(max(0.0, begin - time.monotonic()))
            quiet = foreground.phase()
            before = cpu_seconds(pid), cpu_of_children(cluster.pid)
            while service.metric("milepost_transitions_total", transition="purge") < count:
                assert time.monotonic() < begin + 20 * MAX_SECONDS, "not everything is purged"
                time.sleep(LOOK_S)  # the page of metrics costs the service more than a batch
            taken = time.monotonic() - begin
            busy = foreground.phase()
            after = cpu_seconds(pid), cpu_of_children(cluster.pid)
    return [
        Figure(f"{count:,} expiries", taken, "s", at_most=MAX_SECONDS),
        Figure("CPU time of the service meanwhile", after[0] - before[0], "s"),
        Figure("CPU time of PostgreSQL meanwhile", after[1] - before[1], "s"),
        Figure("p99 of the foreground before", p99(quiet), "ms"),
        Figure("p99 of the foreground meanwhile", p99(busy), "ms"),
        Figure("p99 meanwhile to before", p99(busy) / p99(quiet), "x", at_most=MAX_RATIO),
        Figure("calls of the foreground refused", foreground.refused, "", at_most=0),
        Figure("calls of the foreground before", len(quiet) / seconds, "calls/s"),
        Figure("calls of the foreground meanwhile", len(busy) / taken, "calls/s"),
    ]


def retention(url: str, count: int) -> list[Figure]:
    """Remove the events of some operations row by row, and those of a whole day."""
    engine = open_engine(url)
    values = {"count": count, "each": EVENTS_PER_OPERATION, "time": datetime.now(UTC) - OLD}
    session = Session(engine, pinned_plans=True)
    statement = purge_events_statement(session.database)
    execute(url, _EVENTS, "VACUUM (ANALYZE) events_default", **values)
    begun = time.monotonic()
    while session.run(statement, [(KEPT, 1_000)]):
        pass
    deleted = time.monotonic() - begun
    make_past_day(engine, OLD)
    execute(url, _EVENTS, **values)
    begun = time.monotonic()
    step = event_days.step(session, KEPT)
    dropped = time.monotonic() - begun
    assert step is not None
    assert step.dropped
    session.reset()
    events = count * EVENTS_PER_OPERATION
    return [
        Figure(f"{events:,} events deleted row by row", deleted, "s"),
        Figure(f"{events:,} events dropped with their day", dropped, "s"),
    ]


def run(
    *,
    count: int = OPERATIONS,
    seconds: float = SECONDS,
    callers: int = CALLERS,
) -> list[Figure]:
    """Measure everything on a PostgreSQL of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(postgres_on_load_core())
        stack.enter_context(running_on(LOAD_CORE))
        for name in (EXPIRIES, RETENTION):
            cluster.create_database(name)
            upgrade(cluster.url(name))
            keep_event_days(cluster.url(name))
        found = expiries(cluster, folder, count=count, seconds=seconds, callers=callers)
        return found + retention(cluster.url(RETENTION), count // 4)


def figures() -> list[Figure]:
    """Measure at the size of the targets, for the table of all measurements."""
    return run()


def main() -> int:
    """Measure, print the table, and return 1 if a bound is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale.expiries", description=__doc__)
    parser.add_argument("--count", type=int, default=OPERATIONS, help="operations that expire")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the phase before")
    parser.add_argument("--callers", type=int, default=CALLERS)
    found = run(**vars(parser.parse_args()))
    Console(width=100).print(table("expiries", found))
    return 1 if any(figure.is_missed for figure in found) else 0


if __name__ == "__main__":
    sys.exit(main())
