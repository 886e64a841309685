"""The ends of a function of the Python `Worker`: whatever it does, its operation alone ends."""

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any

import pytest

from milepost_client import Cancelled, Milepost, OperationFailed, Status, SyncMilepost, Work
from tests.e2e.service import Service
from tests.e2e.working import SOON_S, until_progress, working
from tests.waiting import until

LOOP: list[Any] = []
LOOP.append(LOOP)
DEEP: list[Any] = []
for _ in range(60):
    DEEP = [DEEP]


class Rude(Exception):
    """An exception without a text."""

    def __str__(self):
        raise RuntimeError("no text")


class Exiting(Exception):
    """An exception whose text ends the program."""

    def __str__(self):
        return throw(SystemExit(3))

    __repr__ = __str__


class ExitingResult(dict[str, int]):
    """A result that ends the program when it is read."""

    def __iter__(self):
        sys.exit(3)


def throw(problem: BaseException) -> Any:
    """Raise the exception."""
    raise problem


ODD_RESULTS: dict[str, Callable[[], Any]] = {
    "loop": lambda: LOOP,
    "deep": lambda: DEEP,
    "above the limit": lambda: "x" * (1 << 20),
    "above a message": lambda: "x" * (3 << 20),
    "no JSON": lambda: {1, 2},
    "exit": lambda: ExitingResult(a=1),
}
ODD_EXCEPTIONS: dict[str, Callable[[], Any]] = {
    "rude": partial(throw, Rude()),
    "NUL": partial(throw, ValueError("a\0b")),
    "long name": partial(throw, type("E" * 300, (Exception,), {})("x")),
    "cancelled": partial(throw, asyncio.CancelledError()),
    "exits": partial(sys.exit, 3),
    "exiting text": partial(throw, Exiting()),
    "generator": partial(throw, GeneratorExit()),
    "iteration": partial(throw, StopIteration()),
}


def as_coroutine(end: Callable[[], Any]) -> Callable[[Work], Any]:
    """Return a coroutine function that ends so."""

    async def does(work: Work) -> Any:
        await work.progress(0.5)
        return end()

    return does


def as_plain(end: Callable[[], Any]) -> Callable[[Any], Any]:
    """Return a plain function that ends so."""

    def does(work: Any) -> Any:
        work.progress(0.5)
        return end()

    return does


def as_object(end: Callable[[], Any]) -> Any:
    """Return an object with a coroutine method `__call__`."""
    does = as_coroutine(end)

    class Does:
        async def __call__(self, work: Work) -> Any:
            return await does(work)

    return Does()


def decorated(end: Callable[[], Any]) -> Any:
    """Return a coroutine function behind a decorator that is a plain function."""
    does = as_coroutine(end)

    @wraps(does)
    def call(work: Work) -> Awaitable[Any]:
        result: Awaitable[Any] = does(work)
        return result

    return call


def in_a_partial(end: Callable[[], Any]) -> Any:
    """Return a partial application of an object that is called like a coroutine function."""
    return partial(as_object(end))


FORMS: list[Any] = [as_coroutine, as_plain, as_object, decorated, in_a_partial]


@pytest.mark.parametrize("form", FORMS)
async def test_whatever_a_function_does_its_operation_ends_once(
    any_service, caller, function, form
):
    """An odd result fails its operation at once, and an odd exception after all attempts."""
    odd = ODD_RESULTS | ODD_EXCEPTIONS
    runs: Counter[str] = Counter()

    def end(name: str) -> Any:
        runs[name] += 1
        return odd[name]()

    functions = {f"{function}.{n}": form(partial(end, name)) for n, name in enumerate(odd)}
    functions[f"{function}.well"] = form(lambda: {"frames": 7})
    async with working(any_service, functions, concurrency=20, lease=5):
        operations = [
            await caller.create(name, max_attempts=2, initial_backoff=0) for name in functions
        ]
        *failed, well = [await caller.wait(o.id, timeout=SOON_S) for o in operations]
    ends = {name: (o.status, o.attempt) for name, o in zip(odd, failed, strict=True)}
    attempts = dict.fromkeys(ODD_RESULTS, 1) | dict.fromkeys(ODD_EXCEPTIONS, 2)
    assert ends == {name: (Status.FAILED, attempt) for name, attempt in attempts.items()}
    assert all(o.errors[0].code and o.errors[0].message for o in failed)
    assert (runs, well.result) == (attempts, {"frames": 7})


def cancel_itself(*, waits: bool) -> Callable[[Work], Any]:
    """Return a coroutine function that cancels its own task, and waits for that or returns."""

    async def does(_work: Work) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if waits:
            await asyncio.sleep(SOON_S)
        return "done"

    return does


async def test_function_that_cancels_itself_ends_its_operation(any_service, caller, function):
    """It has failed, as with any exception: it is not released, which would have no end."""
    functions = {f"{function}.{waits}": cancel_itself(waits=waits) for waits in (True, False)}
    async with working(any_service, functions, lease=5):
        operations = [
            await caller.create(name, max_attempts=2, initial_backoff=0) for name in functions
        ]
        failed, done = [await caller.wait(o.id, timeout=SOON_S) for o in operations]
    assert (failed.status, failed.attempt) == (Status.FAILED, 2)
    assert failed.errors[0].code == "CancelledError"
    assert (done.status, done.result) == (Status.COMPLETED, "done")


async def test_exception_after_the_end_is_logged(any_service, caller, function, caplog):
    """An exception after the end that the function has chosen changes nothing but the log."""

    async def does(work: Work) -> None:
        await work.complete("done")
        raise ValueError("too late")

    async with working(any_service, function, does):
        operation = await caller.create(function)
        ended = await caller.wait(operation.id, timeout=SOON_S)
        await until(lambda: "too late" in caplog.text)
    assert (ended.status, ended.result) == (Status.COMPLETED, "done")


async def test_ctrl_c_in_a_thread_ends_its_operation_alone(any_service, caller, function):
    """A plain function cannot be interrupted from outside: what it raises is its failure."""
    async with working(any_service, function, as_plain(partial(throw, KeyboardInterrupt()))):
        operation = await caller.create(function, max_attempts=1)
        with pytest.raises(OperationFailed, match="KeyboardInterrupt"):
            await caller.result(operation.id, timeout=SOON_S)


async def test_thread_that_hangs_after_a_cancel_does_not_keep_its_slot(
    any_service, caller, function
):
    """The worker goes on with the next operation; the lost function may hang as long as it will."""
    end = threading.Event()

    def does(work: Any) -> str:
        work.progress(0.5)
        if work.operation.metadata:
            end.wait()
        return "next"

    async with working(any_service, function, does, concurrency=1, grace=0.2):
        hanging = await caller.create(function, metadata={"hang": True})
        await until_progress(caller, hanging.id, 0.5)
        await caller.cancel(hanging.id)
        following = await caller.create(function)
        assert await caller.result(following.id, timeout=SOON_S) == "next"
    end.set()


async def test_coroutine_that_ignores_a_cancel_does_not_keep_its_slot(
    any_service, caller, function
):
    """A coroutine function that swallows its cancellation is given up likewise."""
    end = asyncio.Event()

    async def does(work: Work) -> str:
        await work.progress(0.5)
        while work.operation.metadata and not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue
        return "next"

    async with working(any_service, function, does, concurrency=1, grace=0.2):
        hanging = await caller.create(function, metadata={"hang": True})
        await until_progress(caller, hanging.id, 0.5)
        await caller.cancel(hanging.id)
        following = await caller.create(function)
        assert await caller.result(following.id, timeout=SOON_S) == "next"
    end.set()


async def test_result_survives_an_outage(database_url, tmp_path, function):
    """A function that ends while the service is away has its result stored when it is back."""
    with Service(database_url, tmp_path) as service:
        key = service.api_key("both", roles=("CALLER", "WORKER"), functions=("test.*",))
        begun, end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def does(_: Work) -> str:
            begun.set()
            await end.wait()
            ended.set()
            return "kept"

        async with (
            Milepost(service.address, api_key=key, deadline=0.5) as caller,
            Milepost(service.address, api_key=key, deadline=0.5) as client,
            working(service, function, does, client=client),
        ):
            operation = await caller.create(function)
            await asyncio.wait_for(begun.wait(), SOON_S)
            service.kill()
            end.set()
            await ended.wait()
            await asyncio.sleep(1.5)  # more than the deadline of all tries of one call
            await asyncio.to_thread(service.start)
            done = await caller.wait(operation.id, timeout=SOON_S)
    assert (done.status, done.result, done.attempt) == (Status.COMPLETED, "kept", 1)


def unary_reports(service: Service) -> float:
    """Return the number of UpdateProgress calls that the service has answered."""
    method = "milepost.v1.WorkerService/UpdateProgress"
    return service.metric("milepost_rpc_duration_seconds_count", method=method)


async def test_plain_function_reports_on_the_stream(service, function):
    """Reports of a plain function travel on the progress stream, not as a call each."""

    def does(work: Any) -> str:
        for step in range(1, 101):
            work.progress(step / 100)
        return "done"

    before = unary_reports(service)
    key = service.api_key("alice")
    async with (
        Milepost(service.address, api_key=key) as caller,
        working(service, function, does),
    ):
        operation = await caller.create(function)
        assert await caller.result(operation.id, timeout=SOON_S) == "done"
    assert unary_reports(service) - before <= 1  # the last report, if the stream was slower


async def test_blocking_block_reports_on_the_stream(service):
    """`SyncMilepost.work(stream=True)` uses the progress stream, and learns of a cancel there."""
    key = service.api_key("alice")
    before = unary_reports(service)

    def use() -> str:
        with SyncMilepost(service.address, api_key=key) as milepost:
            operation = milepost.create("video.transcode")
            with (  # noqa: PT012 - the last report is what raises
                pytest.raises(Cancelled),
                milepost.work(operation.id, stream=True) as work,
            ):
                for step in range(1, 101):
                    work.progress(step / 101)
                milepost.cancel(operation.id)
                asyncio.run(until(lambda: not work.is_open))
                work.progress(1.0)
            return str(milepost.get(operation.id).status)

    assert await asyncio.to_thread(use) == "CANCELLED"
    assert unary_reports(service) == before


async def test_results_survive_the_rate_limit(database_url, tmp_path, function):
    """More operations end at once than the limit of writes admits: each completes, a bit later."""
    with Service(database_url, tmp_path, worker_writes_per_minute="600") as service:
        key = service.api_key("alice")

        async def does(_: Work) -> str:
            return "done"

        async with Milepost(service.address, api_key=key) as caller:
            operations = [await caller.create(function) for _ in range(620)]
            async with working(service, function, does, concurrency=620):
                waits = (caller.wait(o.id, timeout=3 * SOON_S) for o in operations)
                ends = [(o.status, o.attempt) for o in await asyncio.gather(*waits)]
    assert set(ends) == {(Status.COMPLETED, 1)}
