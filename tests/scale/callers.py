"""The CPU time of a get by many callers in turn: `python -m tests.scale.callers`.

Two services on one PostgreSQL answer gets of as many operations. All those of the first belong to
one caller, each of the second to another one with an API key of its own, as of callers that poll
every few seconds. Measured is the CPU time of the service per get, in turn.
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import grpc
import sqlalchemy as sa
from rich.console import Console

from milepost.domain.api_key import issue_key
from milepost.domain.operation import Role
from milepost.storage.schema import upgrade
from milepost.storage.tables import api_keys, operations
from tests import factories
from tests.e2e.rpcs import BY_METHOD, CALL_SECONDS
from tests.e2e.service import Service
from tests.postgres import PostgresCluster
from tests.scale.cpu import cpu_seconds
from tests.scale.figures import Figure, table

CALLERS: Final = 10_000
ROUNDS: Final = 5
AT_ONCE: Final = 32
MIN_RATIO: Final = 0.7
_GET: Final = BY_METHOD["GetOperation"]
_WARM_UP_CALLS: Final = 100
"""Calls of unknown callers that are made before the next ones: the service bounds them."""
_WARM_UP_TRIES: Final = 20
_PAUSE_S: Final = 0.2

Call = tuple[str, str]
"""The credential of a caller, and the id of its operation."""


class Subject(NamedTuple):
    """A service, and the calls that it gets in turn."""

    name: str
    service: Service
    calls: Sequence[Call]
    in_turn: Iterator[Call]


def fill(service: Service, callers: int, count: int) -> list[Call]:
    """Insert operations of some callers with their keys; return a call for each operation."""
    keys = [issue_key(subject=f"caller-{n}", roles=[Role.CALLER]) for n in range(callers)]
    rows = [factories.row(owner=f"caller-{n % callers}") for n in range(count)]
    key_rows = [
        {
            "key_id": stored.principal.credential_id,
            "digest": stored.digest,
            "subject": stored.principal.subject,
            "roles": Role.CALLER.value,
            "functions": "",
            "create_time": datetime.now(UTC),
        }
        for _, stored in keys
    ]
    with service.engine.begin() as connection:
        connection.execute(sa.insert(api_keys), key_rows)
        connection.execute(sa.insert(operations), rows)
    return [(f"Bearer {keys[n % callers][0]}", row["id"]) for n, row in enumerate(rows)]


async def make(subject: Subject, calls: Sequence[Call]) -> Counter[grpc.StatusCode]:
    """Make the calls, some at a time; return how many ended with which code."""
    codes = Counter[grpc.StatusCode]()
    remaining = iter(calls)
    async with subject.service.aio_channel() as channel:
        get = _GET.on(channel)

        async def caller() -> None:
            for credential, operation_id in remaining:
                call = get(
                    _GET.request(operation_id=operation_id),
                    metadata=(("authorization", credential),),
                    timeout=CALL_SECONDS,
                )
                codes[await call.code()] += 1

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return codes


async def warm_up(subject: Subject) -> None:
    """Make each call once, with pauses where the service bounds unknown callers."""
    for first in range(0, len(subject.calls), _WARM_UP_CALLS):
        part = subject.calls[first : first + _WARM_UP_CALLS]
        for _ in range(_WARM_UP_TRIES):
            if (await make(subject, part))[grpc.StatusCode.OK] == len(part):
                break
            await asyncio.sleep(_PAUSE_S)


async def microseconds(subject: Subject, count: int) -> float:
    """Return the CPU time of the service per call."""
    process = subject.service.process
    assert process is not None
    spent = cpu_seconds(process.pid)
    codes = await make(subject, list(itertools.islice(subject.in_turn, count)))
    assert codes == {grpc.StatusCode.OK: count}, codes
    return (cpu_seconds(process.pid) - spent) / count * 1e6


async def measure(subjects: Sequence[Subject], rounds: int, count: int) -> list[list[float]]:
    """Return the CPU times of the subjects, measured in turn."""
    for subject in subjects:
        await warm_up(subject)
    taken: list[list[float]] = [[] for _ in subjects]
    for number in range(rounds):
        for place in range(len(subjects)) if number % 2 else reversed(range(len(subjects))):
            taken[place].append(await microseconds(subjects[place], count))
    return taken


def run(*, callers: int = CALLERS, rounds: int = ROUNDS, count: int = 0) -> list[Figure]:
    """Return the median CPU time of each subject, and the rate of the second by that of the first.

    By default each round gets as many operations as there are callers.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(PostgresCluster(durable=False))
        subjects = []
        for name, owners in (("one caller", 1), (f"{callers:,} callers", callers)):
            cluster.create_database(f"callers_{owners}")
            upgrade(url := cluster.url(f"callers_{owners}"))
            service = stack.enter_context(Service(url, folder, forked=False))
            calls = fill(service, owners, callers)
            subjects.append(Subject(name, service, calls, itertools.cycle(calls)))
        taken = asyncio.run(measure(subjects, rounds, count or callers))
        one, many = (statistics.median(each) for each in taken)
        return [
            *(
                Figure(f"a get by {subject.name}", value, "µs of CPU")
                for subject, value in zip(subjects, (one, many), strict=True)
            ),
            Figure("rate of many callers to that of one", one / many, "x", at_least=MIN_RATIO),
        ]


def figures() -> list[Figure]:
    """Measure at the size of the targets, for the table of all measurements."""
    return run()


def main() -> int:
    """Measure, print the table, and return 1 if the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale.callers", description=__doc__)
    for name, default in (("callers", CALLERS), ("rounds", ROUNDS), ("count", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    found = run(**vars(parser.parse_args()))
    Console(width=120).print(table("gets by callers in turn", found))
    return 1 if any(figure.is_missed for figure in found) else 0


if __name__ == "__main__":
    sys.exit(main())
