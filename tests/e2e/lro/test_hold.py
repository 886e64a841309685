"""Held polls: how late a future learns of the end of its operation."""

import statistics
import time

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


def ended_after(client: Client, operation_id: str, future: Program) -> float:
    """Complete an operation and return the seconds until its future has the result."""
    client.transition("CompleteOperation", operation_id)
    start = time.monotonic()
    assert future.line()["value"] == {}
    return time.monotonic() - start


def lags(service: Service, language: str) -> list[float]:
    """Return the lag of each of some futures of one program, after a first one that warms it up.

    The program follows them in turn: a new one loads code for its first answer.
    """
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
    found = lags(any_service, language)
    assert statistics.median(found) <= MAX_LAG_S * slowdown(), found
