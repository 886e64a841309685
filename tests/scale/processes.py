"""Processor time per call of one and of two processes: ``python -m tests.scale.processes``.

A machine with two cores has none left for a load beside two processes. So the capacity is taken
from the processor time: two processes that need no more of it for a call than one, on two cores,
serve twice as many calls. All processes of a service count, with the supervisor. They share the
first core, PostgreSQL and the load the last one, and both services run on one durable PostgreSQL,
each on a database of its own, with everything on. A round measures both, in turns that alternate.

How many calls a process batches decides what each of them costs. So each process has one
connection with the same number of callers: the responses of a group come together, and so do the
next calls. And the processes are loaded one after the other: two that take turns on one core every
millisecond would evict each other's caches, which two on cores of their own do not. What a process
does for the calls of the others, such as taking their notifications, counts all the same.
"""

import argparse
import http.client
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from rich.console import Console
from rich.table import Table

from milepost.storage.tables import operations
from tests.bench import load, servers
from tests.bench.cores import LOAD_CORE, running_on
from tests.bench.databases import Book, postgres_on_load_core
from tests.bench.jobs import Caller, Tally, drive
from tests.bench.scenarios import GrpcScenarios
from tests.machine import free_port
from tests.scale.figures import Figure
from tests.waiting import eventually

TARGET: Final = 1.6
"""Least capacity of two processes on two cores, compared with one process on one."""
SCENARIOS: Final = ("life", "get", "update")
NUMBERS: Final = (1, 2)
STARTED: Final = 1_000
CALLERS: Final = 32
"""Callers of each process."""
SECONDS: Final = 4.0
ROUNDS: Final = 7
_START_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A service of so many processes."""

    processes: int
    pids: Sequence[int]
    """Its processes; with several, the supervisor is the first."""
    port: int
    scenarios: GrpcScenarios


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement of a subject."""

    scenario: str
    processes: int
    tally: Tally
    cpu_s: Sequence[float]
    """Processor time of each of its processes."""

    @property
    def microseconds(self) -> float:
        """Processor time per call."""
        return sum(self.cpu_s) / max(1, self.tally.calls) * 1e6

    @property
    def capacity(self) -> float:
        """Calls per second of as many cores as processes."""
        return self.processes / self.microseconds * 1e6


@contextmanager
def _subject(url: str, processes: int, folder: Path) -> Iterator[Subject]:
    """Start a service on a migrated database."""
    http = f"127.0.0.1:{free_port()}"
    settings = {"MILEPOST_PROCESSES": str(processes), "MILEPOST_HTTP_LISTEN": http}
    secret = servers.create_key(url)
    book = Book(url, operations)
    book.open(STARTED)
    with servers.start_service(url, folder / f"{processes}.log", settings) as server:
        server.wait_until_listening()
        if processes > 1:
            eventually(lambda: _ready(http) == processes, within=_START_S, what="ready")
        yield Subject(
            processes=processes,
            pids=server.pids(),
            port=server.port,
            scenarios=GrpcScenarios(secret, book),
        )
    book.close()


def _ready(address: str) -> int:
    """Return the number of processes that are ready."""
    connection = http.client.HTTPConnection(address, timeout=5)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return sum(
        line.startswith("milepost_process_ready{") and line.endswith(" 1.0") for line in lines
    )


def measure(subject: Subject, scenario: str, callers: int, seconds: float) -> Sample:
    """Let so many callers of each process do the jobs of a scenario."""
    tally, source = Tally(), subject.scenarios.source(scenario)
    connections = _one_for_each_process(subject)
    for connection in connections:
        connection.callers = [Caller(source, tally) for _ in range(callers)]
    try:
        before = _cpu_seconds(subject.pids)
        for connection in connections:
            drive([connection], tally, seconds)
        after = _cpu_seconds(subject.pids)
    finally:
        load.close(connections)
    return Sample(
        scenario=scenario,
        processes=subject.processes,
        tally=tally,
        cpu_s=[late - early for late, early in zip(after, before, strict=True)],
    )


def _one_for_each_process(subject: Subject) -> list[load.Connection]:
    """Open connections until each process has one; the system chooses the process of each."""
    found: dict[int, load.Connection] = {}
    while len(found) < subject.processes:
        connection = load.Connection(subject.port)
        pid = _process_of(connection, subject.pids)
        if pid in found:
            load.close([connection])
        else:
            found[pid] = connection
    return list(found.values())


def _process_of(connection: load.Connection, pids: Sequence[int]) -> int:
    _, ours = connection.socket.getsockname()
    return next(
        pid
        for pid in pids
        for each in psutil.Process(pid).net_connections(kind="tcp")
        if tuple(each.raddr)[1:] == (ours,)  # the address may be an IPv4 one inside of IPv6
    )


def _cpu_seconds(pids: Sequence[int]) -> list[float]:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return [each.user + each.system for each in times]


def run(*, callers: int = CALLERS, seconds: float = SECONDS, rounds: int = ROUNDS) -> list[Sample]:
    """Measure both services in every round; return all samples, those of a round as neighbours."""
    samples = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(postgres_on_load_core())
        stack.enter_context(running_on(LOAD_CORE))
        subjects = []
        for processes in NUMBERS:
            cluster.create_database(name := f"processes{processes}")
            servers.migrate(url := cluster.url(name))
            subjects.append(stack.enter_context(_subject(url, processes, folder)))
        for number in range(rounds):
            for scenario in SCENARIOS:
                samples += [
                    measure(subject, scenario, callers, seconds)
                    for subject in (subjects if number % 2 == 0 else reversed(subjects))
                ]
    return samples


def ratios(samples: Sequence[Sample], scenario: str) -> list[float]:
    """Return the capacity of two processes by that of one, of each round."""
    one, two = (
        [each.capacity for each in samples if (each.scenario, each.processes) == (scenario, number)]
        for number in NUMBERS
    )
    return [high / low for low, high in zip(one, two, strict=True)]


def table(samples: Sequence[Sample], title: str) -> Table:
    """Return the table of the results."""
    shown = Table(title=title)
    headings = ("calls", "1 process µs", "2 processes µs", "capacity", "low…high", "shares", "")
    for heading in headings:
        shown.add_column(heading, justify="left" if heading in {"calls", ""} else "right")
    for scenario in SCENARIOS:
        found = ratios(samples, scenario)
        capacity = statistics.median(found)
        shown.add_row(
            scenario,
            *(f"{_median(samples, scenario, number):.0f}" for number in NUMBERS),
            f"{capacity:.2f}",
            f"{min(found):.2f}…{max(found):.2f}",
            _shares(samples, scenario),
            "REACHED" if capacity >= TARGET else "MISSED",
        )
    return shown


def _median(samples: Sequence[Sample], scenario: str, processes: int) -> float:
    return statistics.median(
        each.microseconds
        for each in samples
        if (each.scenario, each.processes) == (scenario, processes)
    )


def _shares(samples: Sequence[Sample], scenario: str) -> str:
    """Return the shares of the processor time: supervisor and processes."""
    found = [each.cpu_s for each in samples if (each.scenario, each.processes) == (scenario, 2)]
    spent = [sum(each) for each in zip(*found, strict=True)]
    return " ".join(f"{each / sum(spent):.1%}" for each in spent)


def figures() -> list[Figure]:
    """Measure at the size of the targets, for the table of all measurements."""
    return summary(run(rounds=5))


def summary(samples: Sequence[Sample]) -> list[Figure]:
    """Return the capacities of two processes, and the number of failed calls."""
    return [
        *(
            Figure(
                f"{scenario}: capacity of two processes to one",
                statistics.median(ratios(samples, scenario)),
                "x",
                at_least=TARGET,
            )
            for scenario in SCENARIOS
        ),
        Figure(
            "failed calls",
            sum(each.tally.failures.total() for each in samples),
            at_most=0,
        ),
    ]


def main() -> int:
    """Measure, print the table, and return 1 if a target is missed or a call failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale.processes", description=__doc__)
    parser.add_argument("--callers", type=int, default=CALLERS, help="of each process")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    samples = run(callers=given.callers, seconds=given.seconds, rounds=given.rounds)
    title = f"processor time per call, {given.callers} callers of each process"
    Console(width=100).print(table(samples, title))
    failures = [str(dict(each.tally.failures)) for each in samples if each.tally.failures]
    for failure in failures:
        print(failure, file=sys.stderr)
    return int(any(figure.is_missed for figure in summary(samples)))


if __name__ == "__main__":
    sys.exit(main())
