"""The time of a refusal does not reveal whether an operation exists."""

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from grpc import StatusCode

from milepost.domain.operation import new_operation_id
from tests.e2e.rpcs import Rpc
from tests.e2e.service import Service
from tests.faults.strangers import CALLS, Ask, Protocol
from tests.faults.timing import Interval, Rounds, difference, measure, slower
from tests.machine import slowdown

_log = logging.getLogger(__name__)
FOREIGN, MISSING, DELAYED = "foreign", "missing", "delayed"
MORE_TRIES = 5
CALLS_OF_ONE = 300
"""Calls of one stranger before another one goes on, below every rate limit."""


@dataclass(frozen=True)
class Size:
    """The size of a measurement: more rounds detect a smaller difference."""

    rounds: int
    """Rounds before the first evaluation, and again before each later one."""
    evaluations: int
    bound: float
    """Largest difference in microseconds that counts as equal."""
    injected: float
    """Added delay in microseconds that must be detected."""


SMALL = Size(rounds=300, evaluations=20, bound=100.0, injected=400.0)
FULL = Size(rounds=2_000, evaluations=6, bound=25.0, injected=100.0)
sizes = pytest.mark.parametrize(
    "size",
    [
        pytest.param(SMALL, id="small", marks=pytest.mark.timeout(600)),
        pytest.param(FULL, id="full", marks=[pytest.mark.faults, pytest.mark.timeout(600)]),
    ],
)
calls = pytest.mark.parametrize(
    ("protocol", "rpc"),
    CALLS,
    ids=[f"{protocol.__name__}-{rpc.method}" for protocol, rpc in CALLS],
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service of these tests alone, on each database."""
    folder = tmp_path_factory.mktemp("existence")
    if request.param == "sqlite":
        with Service(f"sqlite:///{folder / 'milepost.db'}", folder) as service:
            yield service
        return
    copies = request.getfixturevalue("postgres_copies")
    name = copies.take()
    url = request.getfixturevalue("postgres").url(name)
    with Service(url, folder) as service:
        yield service
    copies.drop(name)


def refused(ask: Ask, next_id: Callable[[], str]) -> Callable[[], None]:
    """Return a call that must be refused with NOT_FOUND."""

    def call() -> None:
        for _ in range(MORE_TRIES + 1):
            code = ask(next_id())
            if code is StatusCode.NOT_FOUND:
                return
            # The machine is too busy for the database. This round is too slow to be counted.
            assert code is StatusCode.UNAVAILABLE
        pytest.fail("the service is not available")

    return call


def rounds_of(service: Service, protocol: Protocol, rpc: Rpc, size: Size) -> Rounds:
    """Measure rounds of one call on a foreign, a missing and a delayed missing operation."""
    alice = service.client("alice")
    foreign = itertools.cycle([alice.create().id for _ in range(8)])
    found: Rounds = []
    while len(found) < size.rounds:
        stranger = service.client("mallory")
        with protocol(service, stranger, rpc) as ask:
            missing = refused(ask, new_operation_id)
            calls = {
                FOREIGN: refused(ask, lambda: next(foreign)),
                MISSING: missing,
                DELAYED: slower(missing, size.injected),
            }
            missing()  # the first call looks the key up
            found += measure(calls, CALLS_OF_ONE // len(calls))
    return found


@sizes
@calls
def test_foreign_takes_as_long_as_missing(service, protocol, rpc, size):
    """Times do not tell a foreign operation apart from a missing one, and a delay is detected.

    On a busy machine all rounds together are less exact, and the bound is wider for them.
    """
    found: Rounds = []
    report = ""
    for left in reversed(range(size.evaluations)):
        found += rounds_of(service, protocol, rpc, size)
        foreign = difference(found, FOREIGN, MISSING)
        delayed = difference(found, DELAYED, MISSING)
        report += f"\n{len(found)} rounds: foreign {foreign}, delayed by {size.injected}: {delayed}"
        _log.info(report.rpartition("\n")[2])
        bound = size.bound if left else size.bound * slowdown()
        if foreign.within(bound) and delayed.beyond(bound):
            return
        if foreign.beyond(size.bound):
            break
    pytest.fail(f"not equally fast, or the delay was not detected{report}")


def test_interval_tells_equal_from_slower():
    """Differences around zero are within a bound, shifted ones beyond it, few ones neither."""
    equal = [{"a": 500.0 + n % 7, "b": 500.0 + n * 3 % 7} for n in range(700)]
    shifted = [{"a": each["a"] + 100.0, "b": each["b"]} for each in equal]
    busy = {"a": 90_000.0, "b": 1.0}
    assert difference([*equal, busy], "a", "b").within(25.0)
    assert not difference(equal, "a", "b").beyond(25.0)
    assert difference([*shifted, busy], "a", "b").beyond(25.0)
    assert difference(shifted, "b", "a").beyond(25.0)
    wide = Interval(-80.0, 90.0)
    assert not wide.within(25.0)
    assert not wide.beyond(25.0)
