"""Claims over two processes of the service: shared work, and the leases of a dead replica."""

import asyncio
import time
from collections import Counter
from datetime import timedelta

import pytest
import sqlalchemy as sa
from google.protobuf import duration_pb2
from grpc import StatusCode

from milepost.domain.operation import OperationId
from milepost.storage.tables import events, operations
from tests import factories
from tests.contract.stored import Stored
from tests.e2e.client import FUNCTION
from tests.e2e.refusals import refused
from tests.machine import slowdown
from tests.waiting import eventually

CLAIMERS = 8
OWNERS = 50
AT_ONCE = duration_pb2.Duration()
sizes = pytest.mark.parametrize(
    "count", [1_000, pytest.param(20_000, marks=[pytest.mark.faults, pytest.mark.timeout(600)])]
)


async def work(client, channel, worked):
    """Claim and complete until there is no work left."""
    while True:
        claimed = await client.begin(
            channel, "ClaimOperations", functions=[FUNCTION], max_operations=20, timeout=AT_ONCE
        )
        if not claimed.operations:
            return
        done = [
            client.begin(
                channel, "CompleteOperation", operation_id=operation.id, attempt=operation.attempt
            )
            for operation in claimed.operations
        ]
        for call in done:
            worked[(await call).operation.id] += 1


@sizes
async def test_each_operation_is_worked_exactly_once(replicas, count):
    """Eight claimers over two processes work on each operation exactly once."""
    stored = Stored(replicas[0].engine)
    rows = [factories.row(owner=f"owner-{n % OWNERS}") for n in range(count)]
    stored.execute(sa.insert(operations), rows)
    client = replicas[0].worker()
    worked: Counter[str] = Counter()
    channels = [service.aio_channel() for service in replicas]
    claimers = [work(client, channels[n % 2], worked) for n in range(CLAIMERS)]
    await asyncio.gather(*claimers)
    await work(client, channels[0], worked)  # claimed by two of them at the end
    for channel in channels:
        await channel.close()
    assert set(worked) == {row["id"] for row in rows}
    assert set(worked.values()) == {1}
    with replicas[0].engine.connect() as connection:
        transitions = sa.select(events.c.transition, sa.func.count()).group_by(events.c.transition)
        assert dict(connection.execute(transitions).all()) == {"claim": count, "complete": count}


def test_work_created_elsewhere_is_claimed_within_a_second(replicas):
    """A waiting claim gets an operation created on another replica within 1 s."""
    here, there = replicas
    worker, alice = here.worker(), there.client("alice")
    waiting = worker.future("ClaimOperations", functions=[FUNCTION])
    eventually(lambda: here.metric("milepost_rpcs_running") >= 1, within=5, what="the claim waits")
    created = alice.create()
    began = time.monotonic()
    (claimed,) = waiting.result().operations
    assert time.monotonic() - began < 1.0 * slowdown()
    assert claimed.id == created.id


def test_work_of_a_dead_replica_is_claimed_by_another(replicas):
    """When a replica and its worker die, the other replica sweeps their lease."""
    dead, alive = replicas
    late, other = dead.worker(), alive.worker()
    alice = alive.client("alice")
    alice.create()
    (lost,) = late.call("ClaimOperations", functions=[FUNCTION]).operations
    dead.kill()
    waiting = other.future("ClaimOperations", functions=[FUNCTION])
    factories.age(alive.engine, OperationId(lost.id), timedelta(seconds=40))
    (again,) = waiting.result().operations
    assert (again.id, again.attempt) == (lost.id, 2)
    done = other.transition("CompleteOperation", again.id, attempt=2)
    with refused(StatusCode.ABORTED, "STALE_ATTEMPT"):
        other.transition("CompleteOperation", lost.id, attempt=1)
    assert alice.get(lost.id) == done
