"""The CPU time of a report while many operations are live: `python -m tests.scale.streams`.

Workers with 1,000 operations each report every operation once in 10 s. Measured is the CPU time of
the process of the service per acknowledged report, after every operation was reported once: with
one update per message, and with all updates in one message that are due in 50 ms. `--before` names
the folder `service` of another checkout, to measure its code in turn with this one; it gets single
updates. The table of all measurements takes that from the history of the repository.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from milepost.storage.tables import operations
from tests.bench import messages, servers
from tests.bench.cores import LOAD_CORE, running_on
from tests.bench.databases import Book, postgres_on_load_core
from tests.scale.figures import Figure
from tests.scale.stream_load import Tally, Worker, report_for

BEFORE: Final = "302a9b5d3185^"
"""The last commit in which a message carried one update only."""
MAX_RATIO: Final = 0.6
"""Bound of the CPU time of a report, by that of the service before."""
OPERATIONS: Final = 50_000
SECONDS: Final = 30.0
PER_WORKER: Final = 1_000
INTERVAL_S: Final = 10.0
PACE_S: Final = 0.05
SINGLE_PACE_S: Final = 0.01
LEASE: Final = timedelta(minutes=10)


class Subject(NamedTuple):
    """A way to report: its name, the folder of the service, and messages of several updates."""

    name: str
    folder: Path | None
    is_batched: bool


class Result(NamedTuple):
    """One measurement."""

    subject: Subject
    tally: Tally
    cpu_seconds: float
    """CPU time of the service after the warm-up."""
    measured: int
    """Reports that were acknowledged after the warm-up."""
    grown: int
    """Growth of the revisions in the database."""

    @property
    def microseconds(self) -> float:
        """The CPU time of the service per acknowledged report."""
        return self.cpu_seconds / max(1, self.measured) * 1e6

    @property
    def faults(self) -> list[str]:
        """What makes the measurement void."""
        tally = self.tally
        faults = [f"{count} times {reason}" for reason, count in tally.failures.items()]
        if tally.acknowledgements != tally.reports:
            faults.append(f"{tally.acknowledgements} of {tally.reports} reports acknowledged")
        if self.grown != tally.acknowledgements:
            faults.append(f"{self.grown} of {tally.acknowledgements} acknowledged commits stored")
        return faults


SINGLE: Final = Subject("single updates", None, is_batched=False)
BATCHED: Final = Subject("updates in batches", None, is_batched=True)


def measure(
    subject: Subject, url: str, secret: str, log: Path, *, count: int, seconds: float
) -> Result:
    """Report `count` operations for `seconds`, with a service of its own."""
    settings = {} if subject.folder is None else {"PYTHONPATH": str(subject.folder)}
    book = Book(url, operations)
    book.open(count)
    _lease(url)
    head = messages.Heads(secret).stream
    groups = [book.started[first : first + PER_WORKER] for first in range(0, count, PER_WORKER)]
    pace = PACE_S if subject.is_batched else SINGLE_PACE_S
    tally = Tally()
    before = book.revisions()
    with servers.start_service(url, log, settings) as server:
        server.wait_until_listening()
        workers = [
            Worker(server.port, head, ids, tally, is_batched=subject.is_batched) for ids in groups
        ]
        warm: list[float] = []
        report_for(
            workers,
            seconds,
            interval=INTERVAL_S,
            pace=pace,
            on_warm=lambda: warm.extend((server.cpu_seconds(), tally.acknowledgements)),
        )
        spent = server.cpu_seconds() - warm[0]
        for worker in workers:
            worker.socket.close()
    grown = book.revisions() - before
    book.close()
    return Result(subject, tally, spent, tally.acknowledgements - int(warm[1]), grown)


def _lease(url: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    values = {"lease": LEASE, "lease_expire_time": sa.func.now() + LEASE}
    with engine.connect() as connection:
        connection.execute(sa.update(operations).values(values))
        connection.execute(sa.text("VACUUM (ANALYZE) operations"))
    engine.dispose()


def run(subjects: Sequence[Subject], *, count: int, seconds: float, rounds: int) -> list[Result]:
    """Measure the subjects in turn, each on a fresh database."""
    results: list[Result] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(postgres_on_load_core())
        stack.enter_context(running_on(LOAD_CORE))
        for number in range(rounds):
            for subject in subjects if number % 2 == 0 else reversed(subjects):
                cluster.create_database(name := f"run{len(results)}")
                url = cluster.url(name)
                servers.migrate(url)
                secret = servers.create_key(url)
                log = folder / f"{name}.log"
                result = measure(subject, url, secret, log, count=count, seconds=seconds)
                results.append(result)
                cluster.drop_database(name)
    return results


@contextmanager
def service_before() -> Iterator[Path | None]:
    """Provide the folder `service` of `BEFORE`; None if the history does not reach so far."""
    command = ("git", "-C", str(servers.ROOT), "archive", BEFORE, "service", "migrations")
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(command, check=False, capture_output=True)
        if archive.returncode:
            yield None
            return
        subprocess.run(("tar", "-x", "-C", folder), check=True, input=archive.stdout)
        yield Path(folder, "service")


def compared(before: Path | None) -> list[Subject]:
    """Return what is measured, the service before first, if there is one."""
    subjects = [SINGLE, BATCHED]
    if before is not None:
        subjects.insert(0, Subject("single updates, before", before, is_batched=False))
    return subjects


def figures(*, count: int = OPERATIONS, seconds: float = SECONDS) -> list[Figure]:
    """Measure beside the service before, for the table of all measurements.

    Without a history, the ratio is that to single updates of this service, and has no bound.
    """
    with service_before() as before:
        results = run(compared(before), count=count, seconds=seconds, rounds=1)
    first, last = results[0], results[-1]
    return [
        *(
            Figure(f"a report in {each.subject.name}", each.microseconds, "µs of CPU")
            for each in results
        ),
        Figure(
            f"{last.subject.name} to {first.subject.name}",
            last.microseconds / first.microseconds,
            "x",
            at_most=None if before is None else MAX_RATIO,
        ),
        Figure("faults of reports", sum(len(each.faults) for each in results), at_most=0),
    ]


def table(results: Sequence[Result], count: int) -> Table:
    """Return the table of the results."""
    shown = Table(title=f"{count:,} live operations, each reported every {INTERVAL_S:.0f} s")
    for heading in ("reports as", "CPU µs", "ratio", "reports", "per message", "p50 ms", "p99 ms"):
        shown.add_column(heading, justify="left" if heading == "reports as" else "right")
    first = _median(results, results[0].subject)
    for result in results:
        tally = result.tally
        shown.add_row(
            result.subject.name,
            f"{result.microseconds:.0f}",
            f"{_median(results, result.subject) / first:.2f}",
            f"{tally.reports:,}",
            f"{tally.reports / max(1, tally.requests):.1f}, "
            f"{tally.acknowledgements / max(1, tally.responses):.1f}",
            f"{tally.delay_ms(0.5):.0f}",
            f"{tally.delay_ms(0.99):.0f}",
        )
    return shown


def _median(results: Sequence[Result], subject: Subject) -> float:
    found = sorted(result.microseconds for result in results if result.subject is subject)
    return found[len(found) // 2]


def main() -> int:
    """Measure, print the table, and return 1 if a measurement is void."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale.streams", description=__doc__)
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--before", type=Path, help="the folder `service` of another checkout")
    arguments = parser.parse_args()
    results = run(
        compared(arguments.before),
        count=arguments.operations,
        seconds=arguments.seconds,
        rounds=arguments.rounds,
    )
    Console(width=100).print(table(results, arguments.operations))
    faults = [f"{each.subject.name}: {fault}" for each in results for fault in each.faults]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
