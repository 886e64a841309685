"""The client for programs without an event loop: made of `Milepost`, method by method."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

from google.protobuf.message import Message

from milepost_client.bridge import Blocking, LoopThread, blocking, entering, iterating
from milepost_client.client import Milepost
from milepost_client.operation import Json, Operation
from milepost_client.work import Work

P = ParamSpec("P")


class SyncWork(Blocking[Work]):
    """What `Work` is, with methods that block."""

    progress = blocking(Work.progress)
    complete = blocking(Work.complete)
    fail = blocking(Work.fail)

    @property
    def operation(self) -> Operation:
        """The operation, as it stood after the last write of this block."""
        return self._target.operation

    @property
    def is_open(self) -> bool:
        """Tell whether there is still something to be completed or failed."""
        return self._target.is_open

    @property
    def result(self) -> Json | Message:
        """What the operation is completed with when the block ends; None means no result."""
        return self._target.result

    @result.setter
    def result(self, result: Json | Message) -> None:
        self._target.result = result


def _like(
    _: Callable[P, Milepost],
) -> Callable[[Callable[..., None]], Callable[Concatenate["SyncMilepost", P], None]]:
    """Give a constructor the parameters of another class."""
    return lambda constructor: constructor


class SyncMilepost(Blocking[Milepost]):
    """What `Milepost` is, with methods that block; it takes the same arguments.

    ::

        with SyncMilepost("127.0.0.1:7450", api_key=key) as milepost:
            operation = milepost.create("video.transcode", metadata={"source": "in.mov"})
            print(milepost.result(operation.id))

    It may be used by many threads at once. Not to be used in an event loop, which it would block,
    nor after a fork.
    """

    create = blocking(Milepost.create)
    get = blocking(Milepost.get)
    wait = blocking(Milepost.wait)
    watch = iterating(Milepost.watch)
    result = blocking(Milepost.result)
    cancel = blocking(Milepost.cancel)
    delete = blocking(Milepost.delete)
    list = iterating(Milepost.list)
    signing_secrets = blocking(Milepost.signing_secrets)
    rotate_signing_secret = blocking(Milepost.rotate_signing_secret)
    deliveries = iterating(Milepost.deliveries)
    redeliver = blocking(Milepost.redeliver)
    send_test_webhook = blocking(Milepost.send_test_webhook)

    claim = blocking(Milepost.claim)
    start = blocking(Milepost.start)
    update_progress = blocking(Milepost.update_progress)
    complete = blocking(Milepost.complete)
    fail = blocking(Milepost.fail)
    work = entering(Milepost.work, SyncWork)

    @_like(Milepost)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(Milepost(*args, **kwargs), LoopThread())

    def __repr__(self) -> str:
        return f"Sync{self._target!r}"

    def __enter__(self) -> Self:
        """Open the channel, and start the thread that serves it."""
        self._thread.start()
        try:
            self._thread.run(self._target.__aenter__)
        except BaseException:
            self._thread.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the channel, and stop the thread."""
        try:
            self._thread.run(self._target.__aexit__, kind, problem, traceback)
        finally:
            self._thread.close()
