"""A replica behind a proxy that neither answers nor ends, over the real timeouts of the proxies."""

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import Final

import pytest

from milepost_client import Milepost, Status
from tests.e2e.service import Service
from tests.proxies import Proxy, require

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

QUIET_S: Final = 90.0
"""The time after which the proxies take a quiet replica for lost."""
MARGIN_S: Final = 30.0
WATCHES: Final = 6
CHECKING: Final = ["haproxy", "envoy"]
"""The proxies that check replicas; another one may open the next watch on the hung one again."""


async def end_of(milepost: Milepost, operation_id: str, begun: asyncio.Event) -> Status:
    """Watch an operation to its end."""
    status = Status.PENDING
    async for change in milepost.watch(operation_id):
        begun.set()
        status = change.status
    return status


@pytest.mark.parametrize("name", CHECKING)
async def test_watches_leave_a_hung_replica(name, replicas, proxies, function):
    """Watches on a stopped replica are cut, resume on another one, and see the end."""
    require(name)
    await leave(replicas, proxies[name], function)


async def leave(replicas: list[Service], proxy: Proxy, function: str) -> None:
    """Stop one replica under watches, and complete their operations on the other one."""
    hung, working = replicas
    key = hung.api_key("alice", ("CALLER", "WORKER"))
    assert hung.process is not None
    async with AsyncExitStack() as stack:
        direct = await stack.enter_async_context(Milepost(working.address, api_key=key))
        milepost = await stack.enter_async_context(proxy.milepost(key, deadline=60))
        ids = [(await direct.create(function)).id for _ in range(WATCHES)]
        begun = [asyncio.Event() for _ in ids]
        watches = [
            asyncio.create_task(end_of(milepost, each, event))
            for each, event in zip(ids, begun, strict=True)
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        hung.process.send_signal(signal.SIGSTOP)
        try:
            for each in ids:
                await direct.start(each)
                await direct.complete(each)
            done, late = await asyncio.wait(watches, timeout=QUIET_S + MARGIN_S)
        finally:
            hung.process.send_signal(signal.SIGCONT)
    assert not late
    assert {watch.result() for watch in done} == {Status.COMPLETED}
