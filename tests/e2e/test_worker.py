"""The Python `Worker` and the real service: claims, progress on one stream, and every end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from milepost_client import (
    Cancelled,
    Milepost,
    Operation,
    PermissionDenied,
    Status,
    SyncWork,
    Work,
    Worker,
)
from tests.e2e.service import Service
from tests.e2e.working import SOON_S, until_progress, until_so, working
from tests.waiting import until


async def test_returned_value_completes_the_operation(any_service, caller, function):
    """A worker claims, reports on its stream, and completes with the returned value."""

    async def does(work: Work) -> dict[str, Any]:
        for step in range(1, 4):
            await work.progress(step / 4, f"step {step}")
        return {"input": work.operation.metadata["n"], "attempt": work.operation.attempt}

    async with working(any_service, function, does, concurrency=4, name="w1"):
        operations = [await caller.create(function, metadata={"n": n}) for n in range(8)]
        results = [await caller.result(o.id, timeout=SOON_S) for o in operations]
    assert results == [{"input": n, "attempt": 1} for n in range(8)]
    done = await caller.get(operations[0].id)
    assert (done.worker, done.progress_message) == ("w1", "step 3")


async def test_raised_exception_fails_the_operation(any_service, caller, function):
    """An exception of the function fails its operation, and the worker goes on."""

    async def does(work: Work) -> str:
        if work.operation.metadata:
            raise KeyError("frame 7")
        return "done"

    async with working(any_service, function, does, concurrency=1):
        bad = await caller.create(function, metadata={"bad": True}, max_attempts=1)
        good = await caller.create(function)
        assert await caller.result(good.id, timeout=SOON_S) == "done"
        failed = await caller.wait(bad.id, timeout=SOON_S)
    assert failed.status is Status.FAILED
    assert [(error.code, error.message) for error in failed.errors] == [("KeyError", "'frame 7'")]


async def test_cancel_is_raised_in_the_coroutine(any_service, caller, function):
    """A cancel reaches a coroutine that reports nothing, and the operation stays cancelled."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def does(work: Work) -> None:
        await work.progress(0.3)
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with working(any_service, function, does):
        operation = await caller.create(function)
        await asyncio.wait_for(started.wait(), SOON_S)
        await until_progress(caller, operation.id, 0.3)
        await caller.cancel(operation.id)
        await asyncio.wait_for(cancelled.wait(), 1.0)
    assert (await caller.get(operation.id)).status is Status.CANCELLED


async def test_cancel_is_raised_in_the_thread(any_service, caller, function):
    """A plain function gets the cancel from its next report."""
    started, caught = threading.Event(), threading.Event()

    def does(work: SyncWork) -> None:
        work.progress(0.3)
        started.set()
        try:
            while work.is_open:
                work.progress()
            work.progress()
        except Cancelled:
            caught.set()
            raise

    async with working(any_service, function, does):
        operation = await caller.create(function)
        assert await asyncio.to_thread(started.wait, SOON_S)
        await until_progress(caller, operation.id, 0.3)
        await caller.cancel(operation.id)
        assert await asyncio.to_thread(caught.wait, SOON_S)
    assert (await caller.get(operation.id)).status is Status.CANCELLED


async def test_no_more_at_once_than_allowed(any_service, caller, function):
    """A worker never runs more functions at once than its concurrency."""
    running, most = 0, 0
    full = asyncio.Event()

    async def does(_: Work) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await full.wait()
        running -= 1

    async with working(any_service, function, does, concurrency=3):
        operations = [await caller.create(function) for _ in range(9)]
        for operation in operations:
            assert (await caller.wait(operation.id, timeout=SOON_S)).status is Status.COMPLETED
    assert most == 3


async def test_lease_is_renewed_while_the_work_is_silent(any_service, caller, function):
    """A function that reports nothing for longer than its lease keeps its operation."""
    finish = asyncio.Event()

    async def does(_: Work) -> str:
        await finish.wait()
        return "kept"

    async with working(any_service, function, does, lease=5):
        operation = await caller.create(function)
        await until_so(caller, operation.id, lambda o: o.lease_expire_time is not None)
        first = (await caller.get(operation.id)).lease_expire_time
        assert first is not None
        await until_so(caller, operation.id, lambda o: o.lease_expire_time not in {None, first})
        finish.set()
        assert await caller.result(operation.id, timeout=SOON_S) == "kept"
    assert (await caller.get(operation.id)).attempt == 1


def ended_claims(service: Service, code: str) -> float:
    """Return the number of claims that ended with this code."""
    return service.metric(
        "milepost_rpc_duration_seconds_count",
        method="milepost.v1.WorkerService/ClaimOperations",
        code=code,
    )


async def test_sigterm_lets_the_work_finish(any_service, caller, function):
    """SIGTERM stops the claims and lets the running work finish."""
    started, finish = asyncio.Event(), asyncio.Event()

    async def does(_: Work) -> str:
        started.set()
        await finish.wait()
        return "finished"

    key = any_service.api_key("wally", roles=("WORKER",), functions=("test.*",))
    async with Milepost(any_service.address, api_key=key) as milepost:
        answered = ended_claims(any_service, "OK")
        running = asyncio.create_task(Worker(milepost, {function: does}).run(handle_signals=True))
        operation = await caller.create(function)
        await asyncio.wait_for(started.wait(), SOON_S)
        await until(lambda: ended_claims(any_service, "OK") > answered)
        await until(lambda: any_service.metric("milepost_rpcs_running") > 0)  # the next claim
        cancelled = ended_claims(any_service, "CANCELLED")
        os.kill(os.getpid(), signal.SIGTERM)
        # The claim and the create use two connections, so that their order is undefined.
        await until(lambda: ended_claims(any_service, "CANCELLED") > cancelled)
        later = await caller.create(function)
        finish.set()
        await asyncio.wait_for(running, SOON_S)
    assert await caller.result(operation.id) == "finished"
    assert (await caller.get(later.id)).status is Status.PENDING


async def test_worker_outside_of_the_main_thread(any_service, caller, function):
    """A worker outside of the main thread runs without signals, and `stop` ends it."""
    key = any_service.api_key("wally", roles=("WORKER",), functions=("test.*",))

    async def work() -> None:
        async def does(_: Work) -> str:
            worker.stop()
            return "finished"

        async with Milepost(any_service.address, api_key=key) as milepost:
            worker = Worker(milepost, {function: does})
            await worker.run()

    running = asyncio.create_task(asyncio.to_thread(asyncio.run, work()))
    operation = await caller.create(function)
    await asyncio.wait_for(running, SOON_S)
    assert await caller.result(operation.id) == "finished"


async def test_work_past_the_grace_period_goes_back(any_service, caller, function):
    """Work that outlasts the grace period is not failed: its operation is released."""
    started = asyncio.Event()

    async def does(_: Work) -> None:
        started.set()
        await asyncio.Event().wait()

    async with working(any_service, function, does, grace=0.0):
        operation = await caller.create(function)
        await asyncio.wait_for(started.wait(), SOON_S)
    left = await caller.get(operation.id)
    assert left.status is Status.PENDING
    assert (left.attempt, left.failed_attempts) == (1, 0)


async def test_refused_claims_end_the_worker(any_service, function):
    """A worker whose claims are refused for good raises the reason and ends."""
    key = any_service.api_key("alice")
    async with Milepost(any_service.address, api_key=key) as milepost:
        with pytest.raises(PermissionDenied):
            await asyncio.wait_for(Worker(milepost, {function: print}).run(), SOON_S)


async def test_block_reports_on_the_stream_when_asked(caller):
    """A work block that streams gets a cancel from its next report."""
    operation = await caller.create("video.transcode")

    async def does() -> None:
        async with caller.work(operation.id, stream=True) as work:
            await work.progress(0.4, "halfway, nearly")
            await until_progress(caller, operation.id, 0.4)
            await caller.cancel(operation.id)
            await until(lambda: not work.is_open)
            await work.progress(0.5)

    with pytest.raises(Cancelled):
        await does()
    assert (await caller.get(operation.id)).status is Status.CANCELLED


async def test_worker_goes_on_after_a_kill_of_the_service(database_url, tmp_path, function):
    """A worker reconnects after a kill -9 and a restart of the service, and completes its work."""
    with Service(database_url, tmp_path) as service:
        key = service.api_key("both", roles=("CALLER", "WORKER"), functions=("test.*",))
        finish = asyncio.Event()

        async def does(work: Work) -> str:
            await work.progress(0.5)
            await finish.wait()
            return "survived"

        async with (
            Milepost(service.address, api_key=key) as caller,
            working(service, function, does),
        ):
            operation = await caller.create(function)
            await until_progress(caller, operation.id, 0.5)
            service.kill()
            await asyncio.to_thread(service.start)
            restarted = await caller.get(operation.id)
            # Its lease is renewed, on a new stream.
            await until_so(caller, operation.id, lambda o: o.revision > restarted.revision)
            finish.set()
            assert await caller.result(operation.id, timeout=SOON_S) == "survived"


async def test_stopped_worker_has_lost_its_lease(any_service, caller, function):
    """Every write of a worker that was frozen past its lease is ABORTED."""
    key = any_service.api_key("wally", roles=("WORKER",), functions=("test.*",))
    operation = await caller.create(function)
    command = [sys.executable, "-c", FROZEN, any_service.address, key, function]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as frozen,  # noqa: ASYNC220
        killing(frozen) as (write, read),
    ):
        assert await asyncio.to_thread(read) == f"{operation.id}\n"
        frozen.send_signal(signal.SIGSTOP)
        async with Milepost(any_service.address, api_key=key) as other:
            again: list[Operation] = []
            async with asyncio.timeout(LEASE_S * 4):
                while not again:
                    again = await other.claim([function], timeout=5)
            assert [(o.id, o.attempt) for o in again] == [(operation.id, 2)]
            frozen.send_signal(signal.SIGCONT)
            write("go on\n")
            assert json.loads(await asyncio.to_thread(read)) == ["ABORTED"] * 3
            await other.complete(operation.id, "second", attempt=2)
    assert await caller.result(operation.id) == "second"


@contextmanager
def killing(
    process: subprocess.Popen[str],
) -> Iterator[tuple[Callable[[str], None], Callable[[], str]]]:
    """Yield functions that write to and read from the process; kill it after the block."""
    assert process.stdin is not None
    assert process.stdout is not None
    stdin = process.stdin

    def write(text: str) -> None:
        stdin.write(text)
        stdin.flush()

    try:
        yield write, process.stdout.readline
    finally:
        process.kill()


LEASE_S = 5.0
FROZEN = f"""
import json, sys
from milepost_client import MilepostError, OperationError, SyncMilepost
with SyncMilepost(sys.argv[1], api_key=sys.argv[2]) as milepost:
    (work,) = milepost.claim([sys.argv[3]], lease={LEASE_S}, timeout=5)
    print(work.id, flush=True)
    sys.stdin.readline()
    codes = []
    for write in (
        lambda: milepost.update_progress(work.id, 0.5, attempt=work.attempt),
        lambda: milepost.fail(work.id, [OperationError("A", "b")], attempt=work.attempt),
        lambda: milepost.complete(work.id, "first", attempt=work.attempt),
    ):
        try:
            write()
            codes.append("OK")
        except MilepostError as error:
            codes.append(error.code.name)
    print(json.dumps(codes), flush=True)
"""
