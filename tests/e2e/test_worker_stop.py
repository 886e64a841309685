"""The end of a program with a Python `Worker`: its operations go back, and signals are its own."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from milepost_client import Milepost, Status, SyncWork, Work, Worker
from milepost_client import worker as worker_module
from tests.e2e.working import SOON_S, until_so, working
from tests.machine import slowdown
from tests.waiting import until

PROGRAM = """
import asyncio, os, sys, time
from milepost_client import Milepost, Worker
async def waits(work):
    await work.progress(0.5)
    print("begun", flush=True)
    await asyncio.sleep(60)
async def blocks(work):
    await work.progress(0.5)
    print("begun", flush=True)
    await asyncio.sleep(0.3)
    time.sleep(60)
async def raises(work):
    await work.progress(0.5)
    print("begun", flush=True)
    await asyncio.sleep(0.3)
    raise KeyboardInterrupt
async def main(address, key, function, how):
    milepost = await Milepost(address, api_key=key).open()
    functions = {f"{function}.{does.__name__}": does for does in (waits, blocks, raises)}
    worker = Worker(milepost, functions, lease=5, grace=60)
    if how == "signals":
        await worker.run(handle_signals=True)
    if how == "plain":
        await worker.run()
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(2)
try:
    asyncio.run(main(*sys.argv[1:]))
except KeyboardInterrupt:
    sys.exit(130)
"""


@contextmanager
def program(address: str, key: str, function: str, how: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a program with a worker beside the block."""
    command = [sys.executable, "-c", PROGRAM, address, key, function, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def begun(process: "subprocess.Popen[str]") -> None:
    """Return when a function of the program has begun."""
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == "begun\n"


async def ended(process: "subprocess.Popen[str]") -> int:
    """Return the exit code of the program."""
    return await asyncio.to_thread(process.wait, SOON_S)


@pytest.fixture
def worker_key(any_service) -> str:
    """An API key for the functions of the tests."""
    key: str = any_service.api_key("wally", roles=("WORKER",), functions=("test.*",))
    return key


async def assert_released(caller: Milepost, operation_id: str) -> None:
    """Check that the operation is pending again without a failed attempt, as after its lease.

    A claim that was on its way may have taken it once more, and given it back too.
    """
    await until_so(caller, operation_id, lambda o: o.status is Status.PENDING)
    assert (await caller.get(operation_id)).failed_attempts == 0


async def test_ctrl_c_in_a_function_releases_all_operations(
    any_service, caller, function, worker_key
):
    """Ctrl-C that surfaces in one function ends the program; all operations go back."""
    operations = [await caller.create(f"{function}.{name}") for name in ("waits", "raises")]
    with program(any_service.address, worker_key, function, "plain") as process:
        await begun(process)
        await begun(process)
        assert await ended(process) == 130
    for operation in operations:
        await assert_released(caller, operation.id)


@pytest.mark.parametrize("how", ["signals", "plain"])
async def test_second_ctrl_c_ends_the_program(any_service, caller, function, worker_key, how):
    """The first Ctrl-C lets functions finish where signals are handled; the second one ends."""
    operation = await caller.create(f"{function}.waits")
    with program(any_service.address, worker_key, function, how) as process:
        await begun(process)
        process.send_signal(signal.SIGINT)
        if how == "signals":
            with pytest.raises(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, 1.0)
            process.send_signal(signal.SIGINT)
        assert await ended(process) == 130
    await assert_released(caller, operation.id)


async def test_program_that_ends_beside_its_worker_releases_its_operations(
    any_service, caller, function, worker_key
):
    """When the main coroutine returns, its worker ends, and its operations go back."""
    operation = await caller.create(f"{function}.waits")
    with program(any_service.address, worker_key, function, "beside") as process:
        await begun(process)
        assert await ended(process) == 0
    await assert_released(caller, operation.id)


async def test_cancelled_run_releases_its_operations_at_once(any_service, caller, function):
    """A worker that is cancelled does not wait for the grace, and releases its operations."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def does(_: Work) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    key = any_service.api_key("wally", roles=("WORKER",), functions=("test.*",))
    async with Milepost(any_service.address, api_key=key) as milepost:
        running = asyncio.create_task(Worker(milepost, {function: does}, grace=60).run())
        operation = await caller.create(function)
        await asyncio.wait_for(begun.wait(), SOON_S)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, SOON_S)
        assert cancelled.is_set()
        await assert_released(caller, operation.id)


async def test_stopped_worker_releases_what_it_cannot_finish(any_service, caller, function):
    """A stopped worker gives 100 operations back within 2 s, and another one has them at once."""
    begun = 0

    async def never_ends(_: Work) -> None:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    async def ends(_: Work) -> None:
        pass

    loop = asyncio.get_running_loop()
    operations = [await caller.create(function) for _ in range(100)]
    async with working(any_service, function, never_ends, concurrency=100, grace=0.1) as worker:
        await until(lambda: begun == 100)
        stop_time = loop.time()
        worker.stop()
    released_s = loop.time() - stop_time
    assert released_s < 2 * slowdown()
    async with working(any_service, function, ends, concurrency=100):
        for operation in operations:
            await until_so(caller, operation.id, lambda o: o.status is Status.COMPLETED)
    done = [await caller.get(operation.id) for operation in operations]
    assert {(o.attempt, o.failed_attempts) for o in done} == {(2, 0)}


async def test_plain_function_is_released_while_its_thread_goes_on(any_service, caller, function):
    """An operation goes back although the thread of its function cannot be ended."""
    begun, ending = threading.Event(), threading.Event()

    def does(_: SyncWork) -> None:
        begun.set()
        ending.wait(SOON_S)

    operation = await caller.create(function)
    async with working(any_service, function, does, grace=0.1):
        await asyncio.to_thread(begun.wait, SOON_S)
    await assert_released(caller, operation.id)
    ending.set()


async def test_function_that_ignores_the_end_is_released(
    any_service, caller, function, monkeypatch
):
    """An operation goes back although its function goes on after it was cancelled."""
    monkeypatch.setattr(worker_module, "MAX_PATIENCE_S", 0.2)
    begun, ending = asyncio.Event(), asyncio.Event()

    async def does(_: Work) -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await ending.wait()
        await ending.wait()

    operation = await caller.create(function)
    async with working(any_service, function, does, grace=0.1):
        await asyncio.wait_for(begun.wait(), SOON_S)
    await assert_released(caller, operation.id)
    ending.set()


async def test_client_that_is_closed_ends_its_worker(any_service, caller, function):
    """A worker whose client was closed says so, and its operations go back before."""
    begun = asyncio.Event()

    async def does(_: Work) -> None:
        begun.set()
        await asyncio.Event().wait()

    key = any_service.api_key("wally", roles=("WORKER",), functions=("test.*",))
    async with Milepost(any_service.address, api_key=key) as milepost:
        running = asyncio.create_task(Worker(milepost, {function: does}, grace=60).run())
        operation = await caller.create(function)
        await asyncio.wait_for(begun.wait(), SOON_S)
    with pytest.raises(RuntimeError, match="the client was closed"):
        await asyncio.wait_for(running, SOON_S)
    await assert_released(caller, operation.id)


async def test_worker_leaves_signals_to_its_host(service, function):
    """Unless it is asked to, a worker changes no signal handler."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    async with working(service, function, print):
        await asyncio.sleep(0.1)
        assert {number: signal.getsignal(number) for number in before} == before


async def test_handlers_are_restored_after_the_worker(service, function):
    """A worker that handles signals gives the handlers of its host back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    key = service.api_key("wally", roles=("WORKER",), functions=("test.*",))
    async with Milepost(service.address, api_key=key) as milepost:
        worker = Worker(milepost, {function: print})
        running = asyncio.create_task(worker.run(handle_signals=True))
        await until(lambda: signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, SOON_S)
    assert {number: signal.getsignal(number) for number in before} == before


async def test_signals_outside_of_the_main_thread_are_refused(service, function):
    """Signals reach the main thread alone: a worker elsewhere says so instead of ignoring them."""
    key = service.api_key("wally", roles=("WORKER",), functions=("test.*",))

    async def run() -> None:
        async with Milepost(service.address, api_key=key) as milepost:
            await Worker(milepost, {function: print}).run(handle_signals=True)

    with pytest.raises(ValueError, match="main thread"):
        await asyncio.to_thread(asyncio.run, run())


async def test_blocked_event_loop_is_reported(service, function, caplog):
    """A coroutine function that blocks the loop beyond its lease is warned of, with the remedy."""
    blocked = asyncio.Event()

    async def does(_: Work) -> None:
        time.sleep(1.5)  # noqa: ASYNC251 - this is the fault
        blocked.set()

    key = service.api_key("alice")
    caplog.set_level(logging.WARNING, "milepost_client.worker")
    async with (
        Milepost(service.address, api_key=key) as caller,
        working(service, function, does, lease=1),
    ):
        operation = await caller.create(function)
        await asyncio.wait_for(blocked.wait(), SOON_S)
        await until(lambda: "the event loop was blocked for 1." in caplog.text)
        await until_so(caller, operation.id, lambda o: o.status.is_terminal)
    assert "make it a plain function" in caplog.text
