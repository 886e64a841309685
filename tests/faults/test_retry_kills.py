"""Retrying operations over two replicas that are killed: their pauses, and the end of each."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2

from milepost.domain.transitions import Transition
from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.client import FUNCTION, Client
from tests.e2e.rpcs import BROKEN
from tests.faults.history import History, histories
from tests.faults.outages import PAUSE_S, Outages, insist
from tests.waiting import until

WORKERS = 16
MAX_FAILURES = 3
CREATES_PER_S = 100
"""So few that workers wait for work, and not work for workers."""
INITIAL_BACKOFF_S = 1
JITTER = 0.2
WAKE_UP_S = 1.0
LEASE = duration_pb2.Duration(seconds=10)
"""Longer than an outage, so that only the claims that a kill has hidden run out."""
CLAIM_WAIT = duration_pb2.Duration(seconds=2)
sizes = pytest.mark.parametrize(
    "count", [100, pytest.param(1_000, marks=[pytest.mark.faults, pytest.mark.timeout(600)])]
)


class Plan:
    """Operations that fail by plan, and the workers that carry it out."""

    def __init__(self, client: Client, channels: Sequence[grpc.aio.Channel]) -> None:
        self._client = client
        self._channels = itertools.cycle(channels)
        self.failures: dict[str, int] = {}
        """The number of failures that each operation shall have."""
        self.reported: Counter[str] = Counter()
        self.completed: set[str] = set()

    async def create(self, number: int) -> None:
        """Create an operation that fails once, twice or three times."""
        created = await self._call(
            "CreateOperation",
            function=FUNCTION,
            request_id=f"create-{number}",
            max_attempts=10,
            retry_policy=pb.RetryPolicy(
                initial_backoff=duration_pb2.Duration(seconds=INITIAL_BACKOFF_S),
                backoff_multiplier=2.0,
                max_backoff=duration_pb2.Duration(seconds=60),
            ),
        )
        self.failures[created.operation.id] = 1 + number % MAX_FAILURES

    async def work(self) -> None:
        """Claim operations and end their attempts as planned, until cancelled."""
        while True:
            answer = await self._call(
                "ClaimOperations",
                functions=[FUNCTION],
                max_operations=4,
                lease=LEASE,
                timeout=CLAIM_WAIT,
            )
            for operation in answer.operations:
                await self._end(operation)

    async def _end(self, operation: pb.Operation) -> None:
        attempt = {
            "operation_id": operation.id,
            "attempt": operation.attempt,
            "request_id": f"{operation.id}-{operation.attempt}",
        }
        await until(lambda: operation.id in self.failures)  # until its create is answered
        if self.reported[operation.id] < self.failures[operation.id]:
            # Before the call: another worker may have the next attempt before its answer is here.
            self.reported[operation.id] += 1
            await self._call("FailOperation", errors=[BROKEN], retryable=True, **attempt)
        else:
            await self._call("CompleteOperation", **attempt)
            self.completed.add(operation.id)

    async def _call(self, method: str, **fields: Any) -> Any:
        return await insist(self._client, lambda: next(self._channels), method, **fields)


async def carry_out(plan: Plan, outages: Outages, count: int) -> None:
    """Create the operations, kill the replicas twice meanwhile, and wait until all have ended."""
    workers = [asyncio.create_task(plan.work()) for _ in range(WORKERS)]

    async def create() -> None:
        for number in range(count):
            await plan.create(number)
            await asyncio.sleep(1 / CREATES_PER_S)

    creating = asyncio.create_task(create())
    for share in (4, 1):
        while plan.reported.total() < count // share:
            await asyncio.sleep(PAUSE_S)
            ended = [task for task in (*workers, creating) if task.done() and task.exception()]
            assert not ended, ended
        await outages.cause()
    await creating
    while len(plan.completed) < count:
        await asyncio.sleep(PAUSE_S)
        assert not [task for task in workers if task.done()]
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


def check_pauses(history: History, outages: Outages) -> None:
    """Assert that each pause is the planned one within 20 %, and the wake-up is in time."""
    backoff = float(INITIAL_BACKOFF_S)
    for event, following in itertools.pairwise(history.events):
        if event["transition"] != Transition.RETRY:
            continue
        assert following["transition"] == Transition.CLAIM, history
        begun, claimed = event["time"].timestamp(), following["time"].timestamp()
        pause = claimed - begun
        late = WAKE_UP_S + outages.within(begun, claimed)
        assert (1 - JITTER) * backoff <= pause <= (1 + JITTER) * backoff + late, history
        backoff *= 2


def check_attempts(history: History, failures: int) -> None:
    """Assert that every attempt is in the history once, and that none but the planned failed."""
    found = Counter(history.transitions)
    attempts = [
        event["attempt"] for event in history.events if event["transition"] == Transition.CLAIM
    ]
    assert found[Transition.RETRY] == failures, history
    assert attempts == list(range(1, len(attempts) + 1)), history
    assert history.row["attempt"] == len(attempts)
    assert len(attempts) == failures + 1 + found[Transition.RELEASE], history
    assert history.row["failed_attempts"] == failures + found[Transition.RELEASE], history


@sizes
async def test_backoffs_hold_over_kills_of_both_replicas(replicas, count):
    """Operations that fail by plan keep their pauses, and all of them complete after two kills.

    A claim whose answer a kill has hidden ends with its lease: it is one more failed attempt.
    """
    outages = Outages(replicas)
    client = replicas[0].client("both", roles=("CALLER", "WORKER"), functions=("*",))
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(each.aio_channel()) for each in replicas]
        plan = Plan(client, channels)
        await carry_out(plan, outages, count)
    found = histories(replicas[0].database_url)
    assert found.keys() == plan.failures.keys()
    for operation_id, history in found.items():
        history.check()
        assert history.row["status"] == "COMPLETED", history
        check_attempts(history, plan.failures[operation_id])
        check_pauses(history, outages)
