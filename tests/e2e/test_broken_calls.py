"""Calls that break on their way: a client goes on as if nothing had happened."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from milepost_client import Milepost, MilepostError, Operation, Status, Worker
from tests.e2e.commands import ENDED_BADLY, milepost
from tests.e2e.service import Service
from tests.http2_proxy import (
    CANCEL,
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Ending,
    Http2Proxy,
    http2_proxy,
    page,
    reset,
    trailers,
)
from tests.waiting import until

CANCELLED, UNKNOWN, INTERNAL, UNAVAILABLE = 1, 2, 13, 14
ENDINGS = {
    "nginx loses the replica": reset(INTERNAL_ERROR),
    "reset without an error": reset(NO_ERROR),
    "reset for the protocol": reset(PROTOCOL_ERROR),
    "stream refused": reset(REFUSED_STREAM),
    "stream cancelled": reset(CANCEL),
    "status UNKNOWN": trailers(UNKNOWN),
    "status INTERNAL": trailers(INTERNAL),
    "status CANCELLED": trailers(CANCELLED),
    "status UNAVAILABLE": trailers(UNAVAILABLE),
    "page 500": page(500),
    "page 502": page(502),
    "page 503": page(503),
    "page 504": page(504),
}
endings = pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)


class Broken:
    """A caller and a worker behind a proxy, and an operation of the caller."""

    def __init__(
        self, proxy: Http2Proxy, caller: Milepost, worker: Milepost, operation: Operation, key: str
    ) -> None:
        self.key = key
        self.proxy = proxy
        self.caller = caller
        self.worker = worker
        self.operation = operation

    async def watch(self, seen: list[Operation]) -> None:
        """Watch the operation to its end, and collect its changes."""
        async for change in self.caller.watch(self.operation.id):
            seen.append(change)  # noqa: PERF401 - each at once

    async def break_calls(self, ending: Ending, count: int = 1) -> None:
        """End the running calls, and the next ones too, until so many have ended."""
        broken = self.proxy.broken
        self.proxy.ending = ending
        self.proxy.end_streams(ending)
        await until(lambda: self.proxy.broken >= broken + count)
        self.proxy.ending = None


@pytest.fixture
async def broken(service: Service) -> AsyncIterator[Broken]:
    """An operation behind a proxy, with its caller, and a worker that is not behind it."""
    key = service.api_key(f"alice-{uuid.uuid4().hex}", roles=("CALLER", "WORKER"))
    async with (
        http2_proxy(service.address) as proxy,
        Milepost(proxy.address, api_key=key) as caller,
        Milepost(service.address, api_key=key) as worker,
    ):
        operation = await caller.create(f"test.{uuid.uuid4().hex}")
        yield Broken(proxy, caller, worker, operation, key)


@endings
async def test_watch_goes_on_over_broken_streams(broken, ending):
    """A watch continues after its last revision, however a stream was broken, and misses nothing.

    The next streams are broken at once, too.
    """
    seen: list[Operation] = []

    watching = asyncio.create_task(broken.watch(seen))
    await until(lambda: len(seen) == 1)
    await broken.break_calls(ending, count=3)
    started = await broken.worker.start(broken.operation.id)
    await until(lambda: len(seen) == 2)
    await broken.break_calls(ending, count=2)
    await broken.worker.complete(broken.operation.id, attempt=started.attempt)
    async with asyncio.timeout(10):
        await watching
    assert [change.status for change in seen] == ["PENDING", "PROCESSING", "COMPLETED"]


@pytest.mark.parametrize(
    "ending", [reset(INTERNAL_ERROR), trailers(UNKNOWN), page(502)], ids=["reset", "status", "page"]
)
async def test_watch_of_the_command_line_goes_on(broken, ending):
    """``ops watch`` goes on over broken streams, to the end of the operation."""
    words = ("ops", "watch", broken.operation.id, "--output", "json")
    watching = asyncio.create_task(
        asyncio.to_thread(
            milepost, *words, MILEPOST_ADDRESS=broken.proxy.address, MILEPOST_API_KEY=broken.key
        )
    )
    await until(lambda: broken.proxy.open_streams == 1)
    await broken.break_calls(ending, count=3)
    await broken.worker.cancel(broken.operation.id)
    done = await watching
    assert (done.code, done.error["reason"]) == (ENDED_BADLY, "OPERATION_CANCELLED")


@endings
async def test_waiting_goes_on_over_broken_calls(broken, ending):
    """The result is returned, however the calls that wait for it were broken."""
    waiting = asyncio.create_task(broken.caller.result(broken.operation.id, timeout=60))
    await until(lambda: broken.proxy.open_streams == 1)
    await broken.break_calls(ending, count=3)
    started = await broken.worker.start(broken.operation.id)
    await broken.worker.complete(broken.operation.id, {"frames": 7}, attempt=started.attempt)
    async with asyncio.timeout(20):
        assert await waiting == {"frames": 7}


@endings
async def test_unary_calls_are_repeated_when_they_break(broken, ending):
    """Reads, changes with a request_id, and claims are sent again, and have one effect."""
    function = broken.operation.function
    for call in (
        broken.caller.get(broken.operation.id),
        broken.caller.create(function),
        broken.caller.start(broken.operation.id),
        broken.caller.update_progress(broken.operation.id, 0.5),
        broken.caller.complete(broken.operation.id, 1),
        _first(broken.caller.list(function=function)),
    ):
        broken.proxy.ending = ending
        calling = asyncio.create_task(call)
        await broken.break_calls(ending, count=2)
        assert (await calling).function == function
    found = [operation.status async for operation in broken.worker.list(function=function)]
    assert sorted(found) == [Status.COMPLETED, Status.PENDING]


async def _first(operations: AsyncIterator[Operation]) -> Operation:
    return await anext(operations)


@endings
async def test_workers_go_on_over_broken_calls(service, broken, ending):
    """Claims and the progress stream of a worker go on, and its operation ends well."""
    function = broken.operation.function
    key = service.api_key("wally", roles=("WORKER",), functions=(function,))
    may_end = asyncio.Event()
    is_working = asyncio.Event()

    async def work(held: object) -> dict[str, int]:
        await held.progress(0.5)  # type: ignore[attr-defined]
        is_working.set()
        await may_end.wait()
        return {"frames": 7}

    async with Milepost(broken.proxy.address, api_key=key) as milepost:
        worker = Worker(milepost, {function: work}, lease=5)
        broken.proxy.ending = ending
        running = asyncio.create_task(worker.run())
        await until(lambda: broken.proxy.broken >= 2)
        broken.proxy.ending = None
        async with asyncio.timeout(20):
            await is_working.wait()
            await broken.break_calls(ending, count=3)
            may_end.set()
            assert await broken.worker.result(broken.operation.id) == {"frames": 7}
        worker.stop()
        await running


@pytest.mark.parametrize("code", [401, 403, 404])
async def test_refusals_of_a_proxy_are_final_at_first(broken, code):
    """An error page that says that the address or the credential is wrong is raised at once."""
    broken.proxy.ending = page(code)
    async with asyncio.timeout(5):
        with pytest.raises(MilepostError):
            await anext(broken.caller.watch(broken.operation.id))
        with pytest.raises(MilepostError):
            await broken.caller.get(broken.operation.id)
    assert broken.proxy.broken == 2


async def test_watch_outlives_a_proxy_without_a_route(broken):
    """A watch that has worked goes on when the proxy has no route for a moment."""
    seen: list[Operation] = []
    watching = asyncio.create_task(broken.watch(seen))
    await until(lambda: len(seen) == 1)
    await broken.break_calls(page(404), count=3)
    await broken.worker.cancel(broken.operation.id)
    async with asyncio.timeout(10):
        await watching
    assert [change.status for change in seen] == [Status.PENDING, Status.CANCELLED]
