"""From coroutines to ordinary methods: an event loop in a thread of its own, and what runs on it.

A blocking class holds no logic. Each of its methods is made of the asynchronous one by one of the
three functions below, with the same parameters and the same documentation::

    class SyncMilepost(Blocking[Milepost]):
        get = blocking(Milepost.get)
        list = iterating(Milepost.list)
        work = entering(Milepost.work, SyncWork)
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

A = TypeVar("A")
P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, between `start` and `close`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> "LoopThread":
        """Stand for a loop that runs already, in a thread that this object does not end."""
        thread = cls()
        thread._loop = loop
        return thread

    def start(self) -> None:
        """Start the thread; return when its loop runs.

        Raises:
            RuntimeError: It runs already.
        """
        if self._loop is not None:
            raise RuntimeError("the client is open already")
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
        """Call the method on the loop, and return or raise what becomes of it.

        When the caller is interrupted, by Ctrl-C say, the call is cancelled.

        Raises:
            RuntimeError: The loop does not run.
        """

        async def finish() -> T:
            return await method(*args, **kwargs)

        if self._loop is None:
            raise RuntimeError("the client is not open: use it in a with statement")
        future = asyncio.run_coroutine_threadsafe(finish(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the loop and its thread. Calls of other threads that still run are cancelled."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(self._end.set)
            self._thread.join()


class Blocking(Generic[A]):
    """The blocking form of an asynchronous object, which does the work on a thread of the loop."""

    def __init__(self, target: A, thread: LoopThread) -> None:
        """Stand for the target, whose coroutines run on the thread."""
        self._target = target
        self._thread = thread


def blocking(
    method: Callable[Concatenate[A, P], Awaitable[T]],
) -> Callable[Concatenate[Blocking[Any], P], T]:
    """Return the form of a coroutine method that returns when it is done."""

    @wraps(method)
    def call(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.run(method, self._target, *args, **kwargs)

    return call


def iterating(
    method: Callable[Concatenate[A, P], AsyncIterator[T]],
) -> Callable[Concatenate[Blocking[Any], P], Iterator[T]]:
    """Return the form of a method for ``async for`` that is for ``for``."""

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
    """Return the form of a method for ``async with`` that is for ``with``, and gives `form`."""

    @wraps(method)
    @contextmanager
    def enter(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[S]:
        manager = method(self._target, *args, **kwargs)
        target = self._thread.run(manager.__aenter__)
        try:
            yield form(target, self._thread)
        except BaseException as problem:
            left = self._thread.run(
                manager.__aexit__, type(problem), problem, problem.__traceback__
            )
            if not left:
                raise
        else:
            self._thread.run(manager.__aexit__, None, None, None)

    return enter
