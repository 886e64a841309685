"""Watchers over two replicas that lose connections, notifications and the database."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
import sqlalchemy as sa

from milepost.domain.operation import OperationId
from milepost.storage.schema import upgrade
from milepost_client import Milepost, MilepostError, Operation, Status
from tests.contract.stored import Stored
from tests.e2e.client import FUNCTION
from tests.e2e.service import Service
from tests.faults.proxy import proxy
from tests.machine import slowdown
from tests.postgres import PostgresCluster

CUT_EVERY_S = 0.2
WITHIN_S = 1.0
REPORTS = 4
WATCHERS_PER_CLIENT = 10
CHANCE = random.Random()  # noqa: S311 - which call goes where is no secret
CUT_NOTIFICATIONS = sa.text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = 'milepost-notifications' AND datname = current_database()"
)
sizes = pytest.mark.parametrize(
    "count", [30, pytest.param(500, marks=[pytest.mark.faults, pytest.mark.timeout(600)])]
)


def assert_whole(stored: Stored, seen: list[Operation]) -> None:
    """Assert that a watcher saw every status once and in order, and the terminal one last."""
    revisions = [operation.revision for operation in seen]
    assert all(earlier < later for earlier, later in pairwise(revisions)), revisions
    changed = [row["revision"] for row in stored.events(OperationId(seen[0].id))]
    assert {each for each in changed if each > revisions[0]} <= set(revisions), (changed, revisions)
    assert seen[-1].status.is_terminal
    assert changed[-1] == revisions[-1]


async def watched(
    milepost: Milepost, operation_id: str, *, begun: asyncio.Event
) -> list[Operation]:
    """Return everything that a watcher gets of the operation."""
    seen = []
    async for operation in milepost.watch(operation_id):
        seen.append(operation)
        begun.set()
    return seen


async def persistently(call):
    """Return the answer to the call, which is repeated while it is UNAVAILABLE."""
    while True:
        try:
            return await call()
        except MilepostError as error:
            if not error.reason.endswith(("UNAVAILABLE", "DRAINING")):
                raise
            await asyncio.sleep(0.05)


async def lived(workers: list[Milepost], operation_id: str, begun: asyncio.Event) -> None:
    """Start, report on and end the operation over alternating replicas."""
    await begun.wait()
    await CHANCE.choice(workers).start(operation_id)
    for done in range(1, REPORTS + 1):
        await CHANCE.choice(workers).update_progress(operation_id, done / REPORTS)
        await asyncio.sleep(CHANCE.uniform(0, CUT_EVERY_S))
    worker = CHANCE.choice(workers)
    await CHANCE.choice((worker.complete, worker.cancel))(operation_id)


@sizes
async def test_cut_watchers_miss_nothing(replicas, count):
    """Watchers whose connections are cut all the time miss no status and see none twice."""
    first = replicas[0]
    key = first.api_key("alice")
    async with AsyncExitStack() as stack:
        between = await stack.enter_async_context(proxy(*(r.address for r in replicas)))
        workers = [
            await stack.enter_async_context(Milepost(replica.address, api_key=key))
            for replica in replicas
        ]
        watchers = [
            await stack.enter_async_context(Milepost(between.address, api_key=key))
            for _ in range(max(3, count // WATCHERS_PER_CLIENT))
        ]
        cutting = asyncio.create_task(between.cut_now_and_then(CUT_EVERY_S))
        watcher, working = [], []
        for number in range(count):
            operation = await workers[number % 2].create(FUNCTION)
            begun = asyncio.Event()
            milepost = watchers[number % len(watchers)]
            watcher.append(asyncio.create_task(watched(milepost, operation.id, begun=begun)))
            working.append(asyncio.create_task(lived(workers, operation.id, begun)))
        found = await asyncio.gather(*watcher)
        await asyncio.gather(*working)
        cutting.cancel()
    assert between.cuts > 0
    stored = Stored(first.engine)
    for seen in found:
        assert_whole(stored, seen)


async def seconds_until_seen(here: Milepost, there: Milepost) -> float:
    """Return the seconds until a change of one replica reaches waits and watches of the other."""
    operation = await here.create(FUNCTION)
    begun = asyncio.Event()
    watcher = asyncio.create_task(watched(there, operation.id, begun=begun))
    waiting = asyncio.create_task(there.wait(operation.id, 20))
    await begun.wait()
    start = time.monotonic()
    await here.cancel(operation.id)
    assert (await watcher)[-1].status is Status.CANCELLED
    assert (await waiting).status is Status.CANCELLED
    return time.monotonic() - start


async def test_change_reaches_another_replica_within_a_second(replicas):
    """A change reaches waits on another replica within 1 s, even with lost notifications."""
    first, second = replicas
    key = first.api_key("alice")
    async with (
        Milepost(first.address, api_key=key) as here,
        Milepost(second.address, api_key=key) as there,
    ):
        for _ in range(3):
            assert await seconds_until_seen(here, there) < WITHIN_S * slowdown()
        operation = await here.create(FUNCTION)
        begun = asyncio.Event()
        watcher = asyncio.create_task(watched(there, operation.id, begun=begun))
        await begun.wait()
        with first.engine.connect() as connection:
            cut = connection.execute(CUT_NOTIFICATIONS).all()
        assert len(cut) == 2
        start = time.monotonic()
        await here.cancel(operation.id)
        assert [each.status for each in await watcher] == [Status.PENDING, Status.CANCELLED]
        assert time.monotonic() - start < WITHIN_S * slowdown()


@pytest.mark.parametrize(
    "away_s", [0, pytest.param(60, marks=[pytest.mark.faults, pytest.mark.timeout(600)])]
)
async def test_outage_of_the_database_loses_nothing(tmp_path, away_s):
    """Watchers see every change before and after an outage of the database."""
    with PostgresCluster(durable=False) as cluster:
        cluster.create_database("watched")
        upgrade(cluster.url("watched"))
        with Service(cluster.url("watched"), tmp_path) as service:
            async with Milepost(service.address, api_key=service.api_key("alice")) as milepost:
                operations = [await milepost.create(FUNCTION) for _ in range(10)]
                tasks = []
                for operation in operations:
                    begun = asyncio.Event()
                    watcher = watched(milepost, operation.id, begun=begun)
                    tasks.append(asyncio.create_task(watcher))
                    await begun.wait()
                await asyncio.gather(*(milepost.start(o.id) for o in operations[:5]))
                await asyncio.to_thread(cluster.kill)
                await asyncio.sleep(away_s)
                await asyncio.to_thread(cluster.start)
                for operation in operations:
                    await persistently(lambda: milepost.cancel(operation.id))  # noqa: B023
                for seen in await asyncio.gather(*tasks):
                    assert_whole(Stored(service.engine), seen)
