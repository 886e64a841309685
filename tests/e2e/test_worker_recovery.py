"""Work that survives failure: retries, checkpoints, and workers that are killed in the middle."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from milepost_client import (
    Milepost,
    Operation,
    OperationError,
    PermanentFailure,
    RetryLater,
    Status,
    SyncWork,
    Work,
)
from tests.e2e.service import Service
from tests.e2e.working import SOON_S, until_so, working
from tests.machine import slowdown

KILLS = 10
PROGRAM = """
import asyncio, json, sys
from milepost_client import Milepost, Worker
async def counts(work):
    done = work.resumed_from or 0
    print(json.dumps(["begun", work.operation.attempt, done]), flush=True)
    done += 1
    await work.checkpoint(done)
    await work.flush()
    print(json.dumps(["stored", work.operation.attempt, done]), flush=True)
    if done <= int(sys.argv[4]):
        await asyncio.sleep(3600)  # it is killed before
    return done
async def waits(work):
    await work.checkpoint("waited")
    print(json.dumps(["begun"]), flush=True)
    await asyncio.sleep(60)
async def main(address, key, function, *_):
    async with Milepost(address, api_key=key) as milepost:
        functions = {f"{function}.{does.__name__}": does for does in (counts, waits)}
        worker = Worker(milepost, functions, lease=1, grace=0.1, concurrency=100)
        await worker.run(handle_signals=True)
asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def worker_process(service: Service, function: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a worker as a process of its own beside the block, and kill it after the block."""
    key = service.api_key("wally", roles=("WORKER",), functions=("test.*",))
    command = [sys.executable, "-c", PROGRAM, service.address, key, function, str(KILLS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def line_of(process: "subprocess.Popen[str]") -> list[Any]:
    """Return the next line of the process."""
    assert process.stdout is not None
    line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 2 * SOON_S)
    content: list[Any] = json.loads(line)
    return content


async def test_killed_workers_do_not_lose_what_was_acknowledged(database_url, tmp_path, function):
    """Ten workers are killed -9 with one operation; each goes on where the last one was stored."""
    begun, stored, ends = [], [0], []
    with Service(
        database_url, tmp_path, lease_min_seconds="1", lease_sweep_seconds="0.1"
    ) as service:
        async with Milepost(service.address, api_key=service.api_key("alice")) as caller:
            operation = await caller.create(f"{function}.counts", max_attempts=KILLS + 1)
            for number in range(KILLS + 1):
                with worker_process(service, function) as process:
                    begun.append((await line_of(process))[1:])
                    stored.append((await line_of(process))[2])
                    if number == KILLS:
                        ends.append(await caller.result(operation.id, timeout=SOON_S))
            done = await caller.get(operation.id)
    assert begun == [[attempt, stored[attempt - 1]] for attempt in range(1, KILLS + 2)]
    assert (done.status, done.attempt, done.failed_attempts) == (Status.COMPLETED, 11, KILLS)
    assert ends == [KILLS + 1]
    assert done.checkpoint is None


async def test_function_that_fails_twice_and_then_works(any_service, caller, function):
    """A function that raises twice completes its operation, and the history has both errors."""

    async def does(work: Work) -> str:
        if work.operation.attempt < 3:
            raise KeyError(f"attempt {work.operation.attempt}")
        return "done"

    async with working(any_service, function, does, name="w1"):
        operation = await caller.create(function, initial_backoff=0.1)
        assert await caller.result(operation.id, timeout=SOON_S) == "done"
    done = await caller.get(operation.id)
    assert (done.status, done.attempt, done.failed_attempts) == (Status.COMPLETED, 3, 2)
    events = [event async for event in caller.events(operation.id, page_size=2)]
    retries = [event for event in events if event.transition == "retry"]
    assert [(e.attempt, e.worker, e.type) for e in retries] == [
        (attempt, "w1", "operation.retrying") for attempt in (1, 2)
    ]
    assert [e.errors for e in retries] == [
        (OperationError("KeyError", f"'attempt {attempt}'"),) for attempt in (1, 2)
    ]
    assert [e.revision for e in events] == sorted(e.revision for e in events)


async def test_failures_end_with_the_attempts(any_service, caller, function):
    """A plain function that always raises fails its operation after the last attempt."""
    attempts = []

    def does(work: SyncWork) -> None:
        attempts.append(work.operation.attempt)
        raise ValueError("again")

    async with working(any_service, function, does):
        operation = await caller.create(function, max_attempts=2, initial_backoff=0)
        failed = await caller.wait(operation.id, timeout=SOON_S)
    assert (failed.status, failed.failed_attempts, attempts) == (Status.FAILED, 2, [1, 2])
    assert failed.errors == (OperationError("ValueError", "again"),)


class NoCodec(PermanentFailure):
    """A failure of a kind of its own."""


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (PermanentFailure("gone"), OperationError("PermanentFailure", "gone")),
        (NoCodec("no h264"), OperationError("NoCodec", "no h264")),
        (
            PermanentFailure("no h264", code="CODEC", source="audio", details={"n": 7}),
            OperationError("CODEC", "no h264", "audio", {"n": 7}),
        ),
    ],
    ids=["plain", "subclass", "with details"],
)
async def test_permanent_failure_ends_at_once(any_service, caller, function, problem, error):
    """After a permanent failure there is no other attempt."""

    async def does(_: Work) -> None:
        raise problem

    async with working(any_service, function, does):
        operation = await caller.create(function)
        failed = await caller.wait(operation.id, timeout=SOON_S)
    assert (failed.status, failed.attempt, failed.errors) == (Status.FAILED, 1, (error,))


async def test_function_chooses_its_next_attempt(any_service, caller, function):
    """`RetryLater` replaces the pause of the policy, and the checkpoint before it is kept."""

    async def does(work: Work) -> None:
        await work.progress(0.5, checkpoint={"page": 7})
        raise RetryLater(60, "the archive is closed")

    async with working(any_service, function, does):
        operation = await caller.create(function)
        await until_so(caller, operation.id, lambda o: o.next_attempt_time is not None)
    waiting = await caller.get(operation.id)
    assert (waiting.status, waiting.failed_attempts, waiting.progress) == ("PENDING", 1, None)
    assert waiting.checkpoint == {"page": 7}
    events = [event async for event in caller.events(operation.id)]
    assert waiting.next_attempt_time is not None
    assert 59 < (waiting.next_attempt_time - events[-1].time).total_seconds() < 61
    assert events[-1].errors == (OperationError("RetryLater", "the archive is closed"),)


@pytest.mark.parametrize("is_flushed", [True, False])
async def test_next_attempt_begins_at_the_last_checkpoint(
    any_service, caller, function, *, is_flushed
):
    """The checkpoint just before a failure is stored with it, even if another one came before."""
    seen: list[Any] = []

    async def does(work: Work) -> str:
        seen.append(work.resumed_from)
        if work.operation.attempt == 1:
            for done in range(1, 6):
                await work.checkpoint({"done": done})
                await asyncio.sleep(0.01)
            if is_flushed:
                await work.flush()
                stored = await caller.get(work.operation.id)
                assert stored.checkpoint == {"done": 5}
            raise ConnectionError
        return "done"

    async with working(any_service, function, does):
        operation = await caller.create(function, initial_backoff=0)
        assert await caller.result(operation.id, timeout=SOON_S) == "done"
    assert seen == [None, {"done": 5}]


async def test_stopped_function_saves_its_state(any_service, caller, function):
    """A function that is stopped with its worker may save a checkpoint while it is cancelled."""
    begun = asyncio.Event()
    seen: list[Any] = []

    async def does(work: Work) -> str:
        seen.append(work.resumed_from)
        if work.resumed_from is not None:
            return "done"
        await work.checkpoint("first")
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await work.checkpoint("last")
        return "never"

    operation = await caller.create(function)
    async with working(any_service, function, does, grace=0.1):
        await asyncio.wait_for(begun.wait(), SOON_S)
    async with working(any_service, function, does):
        assert await caller.result(operation.id, timeout=SOON_S) == "done"
    assert seen == [None, "last"]


async def test_plain_function_saves_checkpoints(any_service, caller, function):
    """A plain function saves and reads checkpoints like a coroutine function."""
    seen: list[Any] = []

    def does(work: SyncWork) -> str:
        seen.append(work.resumed_from)
        if work.operation.attempt == 1:
            work.checkpoint([1, 2])
            work.flush()
            raise OSError
        return "done"

    async with working(any_service, function, does):
        operation = await caller.create(function, initial_backoff=0)
        assert await caller.result(operation.id, timeout=SOON_S) == "done"
    assert seen == [None, [1, 2]]


async def test_too_large_checkpoint_is_refused_alone(any_service, caller, function):
    """A checkpoint above 64 KiB is an error of the function, and harms no other report."""

    async def does(work: Work) -> str:
        await work.checkpoint("kept")
        with pytest.raises(ValueError, match="65,536"):
            await work.checkpoint("x" * 70_000)
        await work.progress(0.5)
        await work.flush()
        stored = await caller.get(work.operation.id)
        assert (stored.checkpoint, stored.progress) == ("kept", 0.5)
        return "done"

    async with working(any_service, function, does):
        operation = await caller.create(function, max_attempts=1)
        assert await caller.result(operation.id, timeout=SOON_S) == "done"


async def test_sigterm_gives_all_operations_back(any_service, caller, function):
    """A worker with 100 operations gives them back within 2 s, and another one has them in 1 s."""
    loop = asyncio.get_running_loop()
    ids = [(await caller.create(f"{function}.waits")).id for _ in range(100)]
    with worker_process(any_service, function) as process:
        for _ in ids:
            assert await line_of(process) == ["begun"]
        stop_time = loop.time()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, SOON_S) == 0
        assert loop.time() - stop_time < 2 * slowdown()
    key = any_service.api_key("wally", roles=("WORKER",), functions=("test.*",))
    claimed: list[Operation] = []
    async with Milepost(any_service.address, api_key=key) as other:
        begin_time = loop.time()
        while len(claimed) < len(ids):
            claimed += await other.claim([f"{function}.waits"], max_operations=100, timeout=1)
            assert loop.time() - begin_time < slowdown()
    assert {(o.attempt, o.failed_attempts, o.checkpoint) for o in claimed} == {(2, 0, "waited")}
