"""Large workers under the default limits: thousands of leases of one subject, and none is lost."""

import asyncio
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from milepost.storage.tables import events, operations
from milepost_client import Milepost, Worker
from tests import factories
from tests.e2e.service import Service
from tests.waiting import eventually

OWNERS = 50
PROGRAM = """
import asyncio, sys
from milepost_client import Milepost, Worker
async def main(address, key, function, concurrency, lease_s, hold_s):
    async def does(work):
        await asyncio.sleep(float(hold_s))
    async with Milepost(address, api_key=key) as milepost:
        worker = Worker(
            milepost, {function: does}, concurrency=int(concurrency), lease=float(lease_s)
        )
        await worker.run(handle_signals=True)
asyncio.run(main(*sys.argv[1:]))
"""


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a drill."""

    workers: int
    each: int
    """Operations in hand of each worker."""
    lease_s: float
    hold_s: float
    """Time for which every operation is in hand, several leases long."""
    writes: int
    """Limit of the subject: worker writes in a minute."""

    @property
    def count(self) -> int:
        """Return the number of operations."""
        return self.workers * self.each


FULL = [pytest.mark.faults, pytest.mark.timeout(600)]
ONE = [
    Size(workers=1, each=60, lease_s=5, hold_s=7, writes=150),
    pytest.param(Size(workers=1, each=1_000, lease_s=30, hold_s=75, writes=6_000), marks=FULL),
]
MANY = [
    Size(workers=2, each=30, lease_s=5, hold_s=7, writes=150),
    pytest.param(Size(workers=10, each=200, lease_s=30, hold_s=75, writes=6_000), marks=FULL),
]


@pytest.fixture
def size(request) -> Size:
    """The size of the drill."""
    size: Size = request.param
    return size


@pytest.fixture
def limited(database_url, tmp_path, size):
    """A service with the default limits, or those of a smaller drill, and pending operations."""
    writes = str(size.writes)
    with Service(database_url, tmp_path, limited=True, worker_writes_per_minute=writes) as service:
        rows = [factories.row(owner=f"owner-{n % OWNERS}") for n in range(size.count)]
        with service.engine.begin() as connection:
            factories.insert(connection, operations, rows)
        yield service


def worker_key(service: Service) -> str:
    """Return a key of the one subject of all workers."""
    return service.api_key("wally", roles=("WORKER",), functions=(factories.FUNCTION,))


async def until_ended(service: Service, size: Size) -> None:
    """Return when all operations are completed, each in its first attempt."""
    ended = sa.select(sa.func.count()).select_from(operations)
    ended = ended.where(operations.c.status.in_(["COMPLETED", "FAILED"]))

    def count() -> int:
        with service.engine.connect() as connection:
            return int(connection.execute(ended).scalar_one())

    await asyncio.to_thread(
        eventually,
        lambda: count() == size.count,
        within=size.hold_s * 3 + 20,
        what="all operations end",
    )
    with service.engine.connect() as connection:
        found = connection.execute(sa.select(operations.c.status, operations.c.attempt)).all()
        transitions = sa.select(events.c.transition, sa.func.count()).group_by(events.c.transition)
        made = {row[0]: row[1] for row in connection.execute(transitions).all()}
    assert Counter(map(tuple, found)) == {("COMPLETED", 1): size.count}
    assert made == {"claim": size.count, "complete": size.count}


@pytest.mark.parametrize("size", ONE, indirect=True)
async def test_one_worker_loses_no_lease(limited, size):
    """A worker with 1,000 operations in hand loses none, though its subject may write less."""
    in_hand = max_in_hand = 0

    async def does(_work):
        nonlocal in_hand, max_in_hand
        in_hand += 1
        max_in_hand = max(max_in_hand, in_hand)
        await asyncio.sleep(size.hold_s)
        in_hand -= 1

    async with Milepost(limited.address, api_key=worker_key(limited)) as milepost:
        worker = Worker(
            milepost, {factories.FUNCTION: does}, concurrency=size.each, lease=size.lease_s
        )
        running = asyncio.create_task(worker.run())
        await until_ended(limited, size)
        worker.stop()
        await running
    assert max_in_hand == size.count


@pytest.mark.parametrize("size", MANY, indirect=True)
async def test_many_processes_of_one_subject_lose_no_lease(limited, size):
    """Ten processes of one subject with 200 operations each lose none of them."""
    arguments = (limited.address, worker_key(limited), factories.FUNCTION)
    numbers = (str(size.each), str(size.lease_s), str(size.hold_s))
    command = [sys.executable, "-c", PROGRAM, *arguments, *numbers]
    programs = [subprocess.Popen(command) for _ in range(size.workers)]  # noqa: ASYNC220
    try:
        await until_ended(limited, size)
    finally:
        for program in programs:
            program.terminate()
        codes = [await asyncio.to_thread(program.wait, 30) for program in programs]
    assert codes == [0] * size.workers
