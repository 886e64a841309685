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
from typing import Final

import sqlalchemy as sa
from rich.console import Console

from milepost.storage import event_days
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.schema import upgrade
from milepost.storage.session import Session
from tests.bench.cores import LOAD_CORE, SERVER_CORE, pin, running_on
from tests.bench.databases import postgres_on_load_core
from tests.e2e.client import Client
from tests.e2e.service import Service
from tests.event_days import keep_event_days, make_past_day
from tests.scale.figures import Figure, table
from tests.waiting import eventually

OPERATIONS: Final = 1_000_000
SECONDS: Final = 20.0
"""Length of the phase in which nothing is due."""
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
        now(), now(), now(), :expire_time, '1 day', '5 s', 3, 1, 3, 'v1', '1 s', '1 s', '5 min', 2
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
            id_ = self._timed("CreateOperation", function="scale").operation.id
            for method in ("StartOperation", "GetOperation", "CompleteOperation"):
                self._timed(method, operation_id=id_)

    def _timed(self, method: str, **fields: object) -> object:
        begun = time.perf_counter()
        answer = self._client.call(method, **fields)
        self.taken.append(time.perf_counter() - begun)
        return answer


def p99(milliseconds: list[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(milliseconds, n=100, method="inclusive")[98]


def expiries(url: str, folder: Path, *, count: int, seconds: float, callers: int) -> list[Figure]:
    """Let operations expire at one moment while callers go on."""
    filled = time.monotonic()
    wait = seconds + 15 + count / 25_000
    expire_time = datetime.now(UTC) + timedelta(seconds=wait)
    execute(
        url,
        _FILL,
        "VACUUM (ANALYZE) operations",
        "CHECKPOINT",
        count=count,
        expire_time=expire_time,
    )
    with Service(url, folder, cleanup_seconds="0.5", log_level="warning") as service:
        assert service.process is not None
        pin(service.process.pid, SERVER_CORE)
        foreground = Foreground(service, callers)
        with foreground.running():
            time.sleep(max(0.0, filled + wait - seconds - time.monotonic()))
            foreground.phase()
            time.sleep(seconds)
            quiet = foreground.phase()
            begun = time.monotonic()
            eventually(
                lambda: service.metric("milepost_transitions_total", transition="purge") >= count,
                within=20 * MAX_SECONDS,
                what="everything purged",
            )
            taken = time.monotonic() - begun
            busy = foreground.phase()
    return [
        Figure(f"{count:,} expiries", taken, "s", at_most=MAX_SECONDS),
        Figure("p99 of the foreground before", p99(quiet), "ms"),
        Figure("p99 of the foreground meanwhile", p99(busy), "ms"),
        Figure("p99 meanwhile to before", p99(busy) / p99(quiet), "x", at_most=MAX_RATIO),
        Figure("calls of the foreground meanwhile", len(busy) / taken, "calls/s"),
    ]


def retention(url: str, count: int) -> list[Figure]:
    """Remove a day of events row by row, and as a whole."""
    engine = open_engine(url)
    values = {"count": count, "each": EVENTS_PER_OPERATION, "time": datetime.now(UTC) - OLD}
    session = Session(engine, pinned_plans=True)
    from milepost.storage.sweeps import purge_events_statement

    statement = purge_events_statement(session.database)
    execute(url, _EVENTS, "VACUUM (ANALYZE) events_default", **values)
    begun = time.monotonic()
    while session.run(statement, [(KEPT, 1_000)]):
        pass
    deleted = time.monotonic() - begun
    make_past_day(engine, OLD)
    execute(url, _EVENTS, **values)
    begun = time.monotonic()
    dropped = event_days.step(session, KEPT)
    taken = time.monotonic() - begun
    assert dropped is not None
    assert dropped.dropped
    session.reset()
    events = count * EVENTS_PER_OPERATION
    return [
        Figure(f"{events:,} events deleted row by row", deleted, "s"),
        Figure(f"{events:,} events dropped with their day", taken, "s"),
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
        urls = []
        for name in ("expiries", "retention"):
            cluster.create_database(name)
            urls.append(cluster.url(name))
            upgrade(urls[-1])
            keep_event_days(urls[-1])
        figures = expiries(urls[0], folder, count=count, seconds=seconds, callers=callers)
        return figures + retention(urls[1], count // 10)


def main() -> int:
    """Measure, print the table, and return 1 if a bound is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale.expiries", description=__doc__)
    parser.add_argument("--count", type=int, default=OPERATIONS, help="operations that expire")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the phase before")
    parser.add_argument("--callers", type=int, default=CALLERS)
    figures = run(**vars(parser.parse_args()))
    Console(width=100).print(table("expiries", figures))
    return 1 if any(figure.is_missed for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
