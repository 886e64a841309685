"""Blocking forms of coroutine methods: an event loop in a thread, and the calls that it runs.

A blocking class holds no logic. Each of its methods is made of the asynchronous one by one of the
three functions below, with the same parameters and the same documentation::

    class SyncMilepost(Blocking[Milepost]):
        get = blocking(Milepost.get)
        list = iterating(Milepost.list)
        work = entering(Milepost.work, SyncWork)
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from milepost_client.trace_context import carried, current_context

A = TypeVar("A")
P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, from `start` to `close`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process_id = os.getpid()

    def start(self) -> None:
        """Start the thread; return when its loop runs.

        Raises:
            RuntimeError: It runs already.
        """
        if self._loop is not None:
            raise RuntimeError("the client is open already")
        self._process_id = os.getpid()
        running: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(
            target=asyncio.run, args=[self._serve(running)], name="milepost-client", daemon=True
        )
        self._thread.start()
        self._loop = running.result()

    async def _serve(self, running: "Future[asyncio.AbstractEventLoop]") -> None:
        self._end = asyncio.Event()
        running.set_result(asyncio.get_running_loop())
        await self._end.wait()

    def run(self, method: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the method on the loop; return its value, or raise its exception.

        When the caller is interrupted, such as by Ctrl-C, the call is cancelled.

        Raises:
            RuntimeError: The loop does not run in this process, or the caller would block it.
        """
        context = current_context()  # the loop runs in a thread of its own

        async def finish() -> T:
            with carried(context):
                return await method(*args, **kwargs)

        if self._loop is None:
            raise RuntimeError("the client is not open: use a with statement, or call open()")
        if self.is_forked:
            raise RuntimeError(
                "the client was opened before a fork: it works in its own process only"
            )
        if is_running(self._loop):
            raise RuntimeError("a blocking method was called in its own event loop")
        future = asyncio.run_coroutine_threadsafe(finish(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @property
    def is_running(self) -> bool:
        """True from `start` to `close`, in the process of the start."""
        return self._loop is not None and not self.is_forked

    @property
    def is_forked(self) -> bool:
        """True in a process that was forked after the start: the thread does not run there."""
        return self._process_id != os.getpid()

    def close(self) -> None:
        """Stop the loop and its thread. Running calls of other threads are cancelled."""
        loop, self._loop = self._loop, None
        if loop is not None and not self.is_forked:
            loop.call_soon_threadsafe(self._end.set)
            self._thread.join()


class RunningLoop(LoopThread):
    """An event loop that runs already, in a thread that this object does not end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def run(self, method: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the method on the loop; see `LoopThread.run`.

        In the thread of the loop itself, return the awaitable: a plain function may have returned
        a coroutine, which runs there, and awaits the methods.
        """
        if self._loop is not None and is_running(self._loop):
            return method(*args, **kwargs)  # type: ignore[return-value]
        return super().run(method, *args, **kwargs)


def is_running(loop: asyncio.AbstractEventLoop | None = None) -> bool:
    """Return True if the caller runs in the loop, or in any."""
    try:
        return asyncio.get_running_loop() is loop or loop is None
    except RuntimeError:
        return False


class Blocking(Generic[A]):
    """The blocking form of an asynchronous object, whose coroutines run on an event loop."""

    def __init__(self, target: A, thread: LoopThread) -> None:
        """Wrap the target, whose coroutines run on the loop of the thread."""
        self._target = target
        self._thread = thread


def blocking(
    method: Callable[Concatenate[A, P], Awaitable[T]],
) -> Callable[Concatenate[Blocking[Any], P], T]:
    """Return the blocking form of a coroutine method.

    It calls the method of the target's own class, which may override the one that is given.
    """
    name = method.__name__

    @wraps(method)
    def call(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound: Callable[P, Awaitable[T]] = getattr(self._target, name)
        return self._thread.run(bound, *args, **kwargs)

    return call


def iterating(
    method: Callable[Concatenate[A, P], AsyncIterator[T]],
) -> Callable[Concatenate[Blocking[Any], P], Iterator[T]]:
    """Return the form for ``for`` of a method for ``async for``."""

    @wraps(method)
    def iterate(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items = method(self._target, *args, **kwargs)
        while True:
            try:
                item = self._thread.run(items.__anext__)
            except StopAsyncIteration:
                return
            yield item

    return iterate


def entering(
    method: Callable[Concatenate[A, P], AbstractAsyncContextManager[T]],
    form: Callable[[T, LoopThread], S],
) -> Callable[Concatenate[Blocking[Any], P], AbstractContextManager[S]]:
    """Return the form for ``with`` of a method for ``async with``; the block gets a `form`."""

    @wraps(method)
    @contextmanager
    def enter(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[S]:
        manager = method(self._target, *args, **kwargs)
        target = self._thread.run(manager.__aenter__)
        try:
            yield form(target, self._thread)
        except BaseException as problem:
            suppressed = self._thread.run(
                manager.__aexit__, type(problem), problem, problem.__traceback__
            )
            if not suppressed:
                raise
        else:
            self._thread.run(manager.__aexit__, None, None, None)

    return enter
