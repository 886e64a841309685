"""The client for programs without an event loop: made of `Milepost`, method by method."""

import threading
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
    """The form of `Work` with methods that block."""

    progress = blocking(Work.progress)
    checkpoint = blocking(Work.checkpoint)
    flush = blocking(Work.flush)
    complete = blocking(Work.complete)
    fail = blocking(Work.fail)
    acknowledge_cancellation = blocking(Work.acknowledge_cancellation)

    @property
    def operation(self) -> Operation:
        """The operation, as it stood after the last write of this block."""
        return self._target.operation

    @property
    def is_open(self) -> bool:
        """True until the operation is completed or failed, or must not be worked on any more."""
        return self._target.is_open

    @property
    def resumed_from(self) -> Any:
        """The last checkpoint that an earlier attempt has saved, or None.

        JSON is a plain value, and any other message the ``google.protobuf.Any`` that holds it.
        """
        return self._target.resumed_from

    @property
    def cancel_requested(self) -> threading.Event:
        """The event of a requested cancel: stop, and clean up within the grace.

        Then raise `AcknowledgeCancellation`, or end in any other way. `Work` has an
        ``asyncio.Event``, and `SyncWork` a ``threading.Event``. Without a progress stream, it is
        set by the next report.
        """
        return self._target._cancel_requested_in_threads  # noqa: SLF001 - for this form

    @property
    def result(self) -> Json | Message:
        """The result with which the block completes the operation; None means no result."""
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
    """The form of `Milepost` with methods that block; it takes the same arguments.

    ::

        with SyncMilepost("127.0.0.1:7450", api_key=key) as milepost:
            operation = milepost.create("video.transcode", metadata={"source": "in.mov"})
            print(milepost.result(operation.id))

    Many threads may use it at once. Do not use it in an event loop, which it would block. Its
    methods raise `RuntimeError` in a forked process, and so does `open` there if a client was open
    before the fork.
    """

    create = blocking(Milepost.create)
    get = blocking(Milepost.get)
    wait = blocking(Milepost.wait)
    watch = iterating(Milepost.watch)
    result = blocking(Milepost.result)
    cancel = blocking(Milepost.cancel)
    events = iterating(Milepost.events)
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
    release = blocking(Milepost.release)
    acknowledge_cancellation = blocking(Milepost.acknowledge_cancellation)
    work = entering(Milepost.work, SyncWork)

    @_like(Milepost)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(Milepost(*args, **kwargs), LoopThread())

    def __repr__(self) -> str:
        return f"Sync{self._target!r}"

    def open(self) -> Self:
        """Open the client, start the thread that serves it, and return the client.

        Raises:
            RuntimeError: It is open already.
        """
        self._thread.start()
        try:
            self._thread.run(self._target.open)
        except BaseException:
            self._thread.close()
            raise
        return self

    def close(self) -> None:
        """Close the client, and stop its thread. Calls in flight are cancelled."""
        if not self._thread.is_running:
            return
        try:
            self._thread.run(self._target.close)
        finally:
            self._thread.close()

    def __enter__(self) -> Self:
        """Open the client; see `open`."""
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client; see `close`."""
        self.close()
