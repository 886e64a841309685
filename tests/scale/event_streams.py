"""Idle watches over HTTP: `python -m tests.scale.event_streams`.

Thousands of connections watch an operation each, as server-sent events. Measured are the memory of
the service for each watch, beside that for an empty stream of the same HTTP server, its CPU time
while nothing but keep-alives is sent, the delay of single changes, and the watches that get the
end of their operation when all operations end.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import sqlalchemy as sa
from rich.console import Console

from milepost.storage.schema import upgrade
from milepost.storage.tables import operations
from tests import factories
from tests.bench import servers
from tests.e2e.client import Client
from tests.e2e.service import Service
from tests.machine import slowdown
from tests.postgres import PostgresCluster
from tests.scale.cpu import cpu_seconds
from tests.scale.event_load import Watches, watches
from tests.scale.figures import Figure, table

WATCHES: Final = 10_000
CHANGES: Final = 100
"""Single changes whose delay is measured."""
KEEP_ALIVE_S: Final = 20.0
"""The default of the service."""
AT_ONCE: Final = 64
"""Cancels in flight."""
SPARE_FILES: Final = 512
"""Files of this process, and connections of the service, beside the watches."""
MAX_RATIO: Final = 2.0
MAX_IDLE_CORES: Final = 0.25
MAX_DELAY_MS: Final = 20.0
HTTP_OK: Final = 200


@contextmanager
def open_files(count: int) -> Iterator[None]:
    """Let this process, and those that it starts, open a file for each watch."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, count + SPARE_FILES)
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise OSError(f"{wanted} open files are needed, and the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory(pid: int) -> int:
    """Return the bytes of memory of a process."""
    size: int = psutil.Process(pid).memory_info().rss
    return size


def paths_of(ids: Sequence[str]) -> list[str]:
    """Return the paths of the watches of some operations."""
    return [f"/v1/operations/{each}:watch" for each in ids]


def empty_streams(folder: Path, ids: Sequence[str]) -> float:
    """Return the bytes of memory of the empty server for each stream."""
    with servers.start_module("tests.bench.empty_http", folder / "empty.log") as server:
        server.wait_until_listening()
        (pid, *_) = server.pids()
        address = ("127.0.0.1", server.port)
        with watches() as warm:
            warm.open(address, paths_of(ids[:1]), "none")
        before = memory(pid)
        with watches() as found:
            found.open(address, paths_of(ids), "none")
            return (memory(pid) - before) / len(ids)


def delays_ms(client: Client, found: Watches, ids: Sequence[str]) -> list[float]:
    """Cancel the first operations one by one; return the delay of the event of each."""
    delays = []
    for operation_id, watch in zip(ids, found.all, strict=False):
        start = time.perf_counter()
        call = client.future("CancelOperation", operation_id=operation_id)
        found.until(lambda: watch.is_ended, what="one end")  # noqa: B023
        delays.append((time.perf_counter() - start) * 1_000)
        call.result()
    return delays


def end_all(client: Client, found: Watches, ids: Sequence[str]) -> None:
    """Cancel the operations, and read until every watch has ended."""
    calls: deque[Any] = deque()
    for operation_id in ids:
        calls.append(client.future("CancelOperation", operation_id=operation_id))
        while len(calls) >= AT_ONCE:
            found.receive(0.001)
            while calls and calls[0].done():
                calls.popleft().result()
    found.until(lambda: all(watch.is_ended for watch in found.all), what="every end")
    for call in calls:
        call.result()


def measure(service: Service, floor: float, client: Client, ids: Sequence[str]) -> list[Figure]:
    """Watch the operations until all of them have ended."""
    assert service.process is not None
    pid = service.process.pid
    host, _, port = service.http_address.rpartition(":")
    address = (host, int(port))
    changes = min(CHANGES, len(ids) // 2)
    with watches() as warm:
        warm.open(address, paths_of(ids[-1:]), client.key)
    before = memory(pid)
    with watches() as found:
        found.open(address, paths_of(ids), client.key)
        each = (memory(pid) - before) / len(ids)
        kept, spent, begun = _keep_alives(found), cpu_seconds(pid), time.monotonic()
        found.until(lambda: _keep_alives(found) >= kept + 2 * len(ids), what="keep-alives")
        cores = (cpu_seconds(pid) - spent) / (time.monotonic() - begun)
        delays = delays_ms(client, found, ids[:changes])
        begun = time.monotonic()
        end_all(client, found, ids[changes:])
        ended = sum(
            watch.status == HTTP_OK and watch.changes > 1 and watch.is_ended for watch in found.all
        )
        return [
            Figure("idle watches", len(ids)),
            Figure("memory of each", each / 1024, "KiB"),
            Figure("memory to that of an empty stream", each / floor, "x", at_most=MAX_RATIO),
            Figure("CPU time while idle", cores, "cores", at_most=MAX_IDLE_CORES),
            Figure("p50 of the delay of a change", statistics.median(delays), "ms"),
            Figure(
                "p99 of the delay of a change",
                statistics.quantiles(delays, n=100)[98],
                "ms",
                at_most=MAX_DELAY_MS * slowdown(),
            ),
            Figure("watches that got the end", ended, at_least=len(ids)),
            Figure("duration of all ends", time.monotonic() - begun, "s"),
        ]


def _keep_alives(found: Watches) -> int:
    return sum(watch.keep_alives for watch in found.all)


def run(
    *, count: int = WATCHES, keep_alive: float = KEEP_ALIVE_S, url: str | None = None
) -> list[Figure]:
    """Measure on a migrated database, or on a PostgreSQL of its own."""
    with ExitStack() as stack:
        stack.enter_context(open_files(count))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if url is None:
            cluster = stack.enter_context(PostgresCluster(durable=False))
            cluster.create_database("event_streams")
            upgrade(url := cluster.url("event_streams"))
        service = Service(
            url,
            folder,
            forked=False,
            http_connections_max=str(count + SPARE_FILES),
            keep_alive_seconds=str(keep_alive),
        )
        stack.enter_context(service)
        client = service.client("alice")
        rows = [factories.row(owner=client.subject) for _ in range(count)]
        with service.engine.begin() as connection:
            connection.execute(sa.insert(operations), rows)
        ids = [row["id"] for row in rows]
        return measure(service, empty_streams(folder, ids), client, ids)


def figures() -> list[Figure]:
    """Measure at the size of the target, for the table of all measurements."""
    return run()


def main() -> int:
    """Measure, print the table, and return 1 if a bound is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.scale.event_streams", description=__doc__
    )
    parser.add_argument("--count", type=int, default=WATCHES, help="watches")
    parser.add_argument("--keep-alive", type=float, default=KEEP_ALIVE_S, help="seconds")
    found = run(**vars(parser.parse_args()))
    Console(width=100).print(table("watches over HTTP", found))
    return 1 if any(figure.is_missed for figure in found) else 0


if __name__ == "__main__":
    sys.exit(main())
