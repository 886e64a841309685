"""Held polls: how late a future learns of the end of its operation."""

import statistics
import time
from contextlib import ExitStack

import pytest

from tests.e2e.client import Client
from tests.e2e.lro.programs import Program, languages, running
from tests.e2e.lro.test_stock_clients import named
from tests.e2e.service import Service
from tests.machine import slowdown
from tests.waiting import eventually

FUTURES = 7
MAX_LAG_S = 0.02
START_S = 30.0
HOLD_S = 50
IN_TURN = {"java"}
"""Programs whose futures follow each other: a new JVM loads classes for its first answer."""


def ended_after(client: Client, operation_id: str, future: Program) -> float:
    """Complete an operation and return the seconds until its future has the result."""
    client.transition("CompleteOperation", operation_id)
    start = time.monotonic()
    assert future.line()["value"] == {}
    return time.monotonic() - start


def lags(service: Service, language: str, *, hold_s: int = HOLD_S) -> list[float]:
    """Return the lag of each of some futures, whose polls are held or not."""
    alice = service.client("alice")
    operations = [alice.create_in("PROCESSING") for _ in range(FUTURES)]
    with ExitStack() as stack:
        programs = [
            stack.enter_context(
                running(language, service.address, alice.key, "wait", named(each), hold_s=hold_s)
            )
            for each in operations
        ]
        if hold_s:
            eventually(
                lambda: service.metric("milepost_rpcs_running") >= FUTURES,
                within=START_S,
                what="every poll is held",
            )
        return [
            ended_after(alice, operation.id, program)
            for operation, program in zip(operations, programs, strict=True)
        ]


def lags_in_turn(service: Service, language: str) -> list[float]:
    """Return the lag of each of some futures of one program, after a first one that warms it up."""
    alice = service.client("alice")
    ended = alice.create_in("COMPLETED")
    operations = [alice.create_in("PROCESSING") for _ in range(FUTURES)]
    names = ",".join(named(each) for each in [ended, *operations])
    found = []
    with running(language, service.address, alice.key, "wait", names, hold_s=HOLD_S) as program:
        assert program.line()["value"] == {}
        for operation in operations:
            eventually(
                lambda: service.metric("milepost_rpcs_running") >= 1,
                within=START_S,
                what="the poll is held",
            )
            found.append(ended_after(alice, operation.id, program))
    return found


@pytest.mark.parametrize("language", languages())
def test_held_futures_end_at_once(any_service, language):
    """The median future whose polls are held has the result 20 ms after the end."""
    measured = lags_in_turn if language in IN_TURN else lags
    found = measured(any_service, language)
    assert statistics.median(found) <= MAX_LAG_S * slowdown()
