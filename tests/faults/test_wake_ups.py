"""The wake-up of scheduled and of retrying operations, on one replica and on another."""

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import duration_pb2

from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.client import FUNCTION, Client
from tests.e2e.rpcs import BROKEN
from tests.e2e.service import Service
from tests.machine import slowdown

SAME_REPLICA_S = 0.1
OTHER_REPLICA_S = 1.0
MAX_HICCUP_S = 0.5
"""Further delay of a wake-up on a machine that is busy with something else."""
PAUSE = timedelta(seconds=0.3)
BACKOFF = duration_pb2.Duration(nanos=300_000_000)
sizes = pytest.mark.parametrize(
    "count", [7, pytest.param(50, marks=[pytest.mark.faults, pytest.mark.timeout(600)])]
)


@pytest.fixture
def service(database_url: str, tmp_path: Path) -> Iterator[Service]:
    """A service on each database."""
    with Service(database_url, tmp_path) as service:
        yield service


def lateness(waiting: Any, due: datetime) -> float:
    """Return the seconds from the time at which an operation is due to the answer of its claim."""
    (operation,) = waiting.result().operations
    late = time.time() - due.timestamp()
    assert operation.start_time.ToDatetime(UTC) >= due, "claimed before its time"
    return late


def scheduled(client: Client, pause: timedelta = PAUSE) -> datetime:
    """Create an operation for a time, and return that time."""
    due = datetime.now(UTC) + pause
    client.create(schedule_time=due)
    return due


def claiming(client: Client) -> Any:
    """Return a claim that waits for work."""
    return client.future("ClaimOperations", functions=[FUNCTION])


@sizes
def test_schedule_wakes_within_100_ms(service, count):
    """A waiting claim gets a scheduled operation within 100 ms of its time, and not before."""
    alice, worker = service.client("alice"), service.worker()
    late = []
    for _ in range(count):
        waiting = claiming(worker)
        late.append(lateness(waiting, scheduled(alice)))
    assert statistics.median(late) < SAME_REPLICA_S * slowdown(), late
    assert max(late) < (SAME_REPLICA_S + MAX_HICCUP_S) * slowdown(), late


@sizes
def test_backoff_wakes_within_100_ms(service, count):
    """A waiting claim gets a retrying operation within 100 ms of the end of its pause."""
    alice, worker = service.client("alice"), service.worker()
    policy = pb.RetryPolicy(initial_backoff=BACKOFF, backoff_multiplier=1.0)
    late = []
    for _ in range(count):
        alice.create(retry_policy=policy)
        (claimed,) = claiming(worker).result().operations
        failed = worker.transition(
            "FailOperation",
            claimed.id,
            attempt=claimed.attempt,
            errors=[BROKEN],
            retryable=True,
        )
        waiting = claiming(worker)
        late.append(lateness(waiting, failed.next_attempt_time.ToDatetime(UTC)))
        worker.transition("CompleteOperation", claimed.id)
    assert statistics.median(late) < SAME_REPLICA_S * slowdown(), late
    assert max(late) < (SAME_REPLICA_S + MAX_HICCUP_S) * slowdown(), late


@sizes
def test_schedule_wakes_on_another_replica_within_a_second(replicas, count):
    """A claim that waits on one replica gets an operation that was scheduled on another."""
    here, there = replicas
    alice, worker = there.client("alice"), here.worker()
    late = []
    for _ in range(count):
        waiting = claiming(worker)
        late.append(lateness(waiting, scheduled(alice)))
    assert max(late) < OTHER_REPLICA_S * slowdown(), late


def test_schedule_of_a_dead_replica_wakes_within_a_second(replicas):
    """When the replica that was to wake an operation dies, the other one wakes it."""
    here, there = replicas
    alice, worker = there.client("alice"), here.worker()
    waiting = claiming(worker)
    due = scheduled(alice, timedelta(seconds=1.5))
    there.kill()
    assert lateness(waiting, due) < OTHER_REPLICA_S * slowdown()
