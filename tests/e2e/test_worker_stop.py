"""The end of a program with a Python `Worker`: its operations go back, and signals are its own."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from milepost_client import Milepost, Status, Work, Worker
from tests.e2e.working import SOON_S, until_so, working
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


async def test_ctrl_c_in_a_function_leaves_all_operations(
    any_service, caller, function, worker_key
):
    """Ctrl-C that surfaces in one function ends the program, and fails no operation."""
    operations = [await caller.create(f"{function}.{name}") for name in ("waits", "raises")]
    with program(any_service.address, worker_key, function, "plain") as process:
        await begun(process)
        await begun(process)
        assert await ended(process) == 130
    for operation in operations:
        left = await caller.get(operation.id)
        assert (left.status, left.errors) == (Status.PROCESSING, ())


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
    left = await caller.get(operation.id)
    assert (left.status, left.errors) == (Status.PROCESSING, ())


async def test_program_that_ends_beside_its_worker_leaves_its_operations(
    any_service, caller, function, worker_key
):
    """When the main coroutine returns, its worker ends, and fails no operation."""
    operation = await caller.create(f"{function}.waits")
    with program(any_service.address, worker_key, function, "beside") as process:
        await begun(process)
        assert await ended(process) == 0
    left = await caller.get(operation.id)
    assert (left.status, left.errors) == (Status.PROCESSING, ())


async def test_cancelled_run_leaves_its_operations_at_once(any_service, caller, function):
    """A worker that is cancelled does not wait for the grace, and fails nothing."""
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
        left = await caller.get(operation.id)
    assert (left.status, left.errors) == (Status.PROCESSING, ())


async def test_client_that_is_closed_ends_its_worker(any_service, caller, function):
    """A worker whose client was closed says so; its operations are left."""
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
    assert (await caller.get(operation.id)).status is Status.PROCESSING


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
