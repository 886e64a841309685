"""One progress stream for all the work of a client: it reconnects by itself and misses nothing.

Only the newest report of an operation is kept. It is sent when there is room, and again after the
stream was cut off, so that the service knows again whom to tell of a cancel.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import grpc

from milepost_client import errors
from milepost_client.calls import Calls, ProgressCall
from milepost_client.errors import OVER, MilepostError
from milepost_client.gen.milepost.v1 import worker_service_pb2 as pb
from milepost_client.operation import Status
from milepost_client.pace import growing_pauses
from milepost_client.refusal import error_class

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0
"""Bounds, in seconds, of the pause before the stream is opened again."""
RENEWAL: Final = 3.0
"""After so many seconds without a report a sign of life is sent; the shortest lease is 5 s."""
ROUND: Final = 0.5
"""Seconds between two looks for operations that need a sign of life."""
FAREWELL: Final = 5.0
"""How many seconds the service has to acknowledge the last reports."""

AGAIN: Final = (
    errors.Unavailable,
    errors.RateLimited,
    errors.LostRace,
    errors.InternalError,
)
"""The refusals after which the same report is sent again."""


class Following:
    """One operation on the stream, from `ProgressStream.follow` to `close`."""

    def __init__(
        self,
        stream: "ProgressStream",
        operation_id: str,
        attempt: int,
        on_over: Callable[[MilepostError], None],
    ) -> None:
        """Report nothing yet; `on_over` is called when the work must stop."""
        self._stream = stream
        self._on_over = on_over
        self._problem: MilepostError | None = None
        self.request = pb.StreamProgressRequest(operation_id=operation_id, attempt=attempt)
        self._version = self._sent_version = self._stored_version = 0
        self.sent = 0.0
        """When the newest report was sent, by the clock of the loop."""
        self.revision = 0
        """The last revision that the service has acknowledged."""

    async def report(self, progress: float | None = None, message: str | None = None) -> None:
        """Send this as soon as there is room; it takes the place of what was not sent yet.

        Raises:
            MilepostError: Why an earlier report was refused, or why the work must stop.
        """
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem
        if progress is not None:
            self.request.progress = progress
        if message is not None:
            self.request.message = message
        self._version += 1
        self._stream.send_soon(self)
        await asyncio.sleep(0)  # the stream gets its turn, however busy the work is

    def take_out(self) -> pb.StreamProgressRequest:
        """Return the newest report, which is sent now."""
        self._sent_version = self._version
        return self.request

    def acknowledged(self, revision: int) -> None:
        """Take note that what was sent is stored, up to this revision."""
        self.revision = revision
        self._stored_version = self._sent_version

    @property
    def unsettled(self) -> pb.StreamProgressRequest | None:
        """The newest report, if no acknowledgement has come since it was sent."""
        return self.request if self._version > self._stored_version else None

    def refused(self, error: MilepostError) -> None:
        """Take note that a report was refused."""
        self._problem = error
        if isinstance(error, OVER):
            self.close()
            self._on_over(error)
        else:  # what was refused would be refused again, with every sign of life
            self.request.ClearField("progress")
            self.request.ClearField("message")

    def close(self) -> None:
        """Follow the operation no more."""
        self._stream.forget(self)


class ProgressStream:
    """A stream that is open while there is something to report. Create it in an event loop."""

    def __init__(self, calls: Calls) -> None:
        """Open nothing yet."""
        self._calls = calls
        self._followed: dict[str, Following] = {}
        self._unsent: dict[str, Following] = {}
        self._wanted = asyncio.Event()
        self._closing = False
        self._heard = False
        self._running: asyncio.Task[None] | None = None

    def follow(
        self, operation_id: str, attempt: int, on_over: Callable[[MilepostError], None]
    ) -> Following:
        """Report on an operation from now on, and keep its lease; first by a sign of life.

        Args:
            operation_id: The operation, which is being worked on.
            attempt: The attempt that this worker holds.
            on_over: Called once, with the reason, when the work must stop.
        """
        following = Following(self, operation_id, attempt, on_over)
        self._followed[operation_id] = following
        self.send_soon(following)
        return following

    def send_soon(self, following: Following) -> None:
        """Let the newest report be sent, if the operation is still followed."""
        operation_id = following.request.operation_id
        if self._followed.get(operation_id) is following:
            self._unsent[operation_id] = following
            self._wanted.set()
            if self._running is None:
                self._running = asyncio.create_task(self._run())

    def forget(self, following: Following) -> None:
        """Send nothing more about the operation."""
        operation_id = following.request.operation_id
        if self._followed.get(operation_id) is following:
            del self._followed[operation_id]
            self._unsent.pop(operation_id, None)

    async def close(self) -> None:
        """Send what is left, and end when it is acknowledged, within a bounded time."""
        self._closing = True
        self._wanted.set()
        if self._running is not None:
            await asyncio.wait({self._running}, timeout=FAREWELL)
            self._running.cancel()
            await asyncio.wait({self._running})

    async def _run(self) -> None:
        pauses = growing_pauses(first=FIRST_PAUSE, most=LONGEST_PAUSE)
        while True:
            self._heard = False
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._converse()
            if self._closing:
                return
            if self._heard:
                pauses = growing_pauses(first=FIRST_PAUSE, most=LONGEST_PAUSE)
            await asyncio.sleep(next(pauses))

    async def _converse(self) -> None:
        """Hold one stream, from the first report to its end by either side."""
        self._unsent = dict(self._followed)
        call = self._calls.stream_progress()
        writing = asyncio.create_task(self._write(call))
        try:
            while isinstance(response := await call.read(), pb.StreamProgressResponse):
                self._heard = True
                self._take(response)
        finally:
            call.cancel()
            writing.cancel()
            await asyncio.wait({writing})
            if not writing.cancelled():
                writing.exception()  # what ended the writing has ended the reading too

    async def _write(self, call: ProgressCall) -> None:
        clock = asyncio.get_running_loop().time
        while self._unsent or not self._closing:
            while self._unsent:
                operation_id = next(iter(self._unsent))
                following = self._unsent.pop(operation_id)
                following.sent = clock()
                await call.write(following.take_out())
            if not self._closing:
                # Not wait_for: its task may be cancelled before it has begun, which is warned of.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ROUND):
                        await self._wanted.wait()
            self._wanted.clear()
            for operation_id, following in self._followed.items():
                if following.sent + RENEWAL <= clock():
                    self._unsent[operation_id] = following
        await call.done_writing()

    def _take(self, response: pb.StreamProgressResponse) -> None:
        """Tell whom it concerns what the service has said."""
        match response.WhichOneof("item"):
            case "acknowledgement":
                following = self._followed.get(response.acknowledgement.operation_id)
                if following is not None:
                    following.acknowledged(response.acknowledgement.revision)
            case "interruption":
                following = self._followed.get(response.interruption.operation_id)
                if following is not None:
                    following.refused(_interruption(response.interruption))
            case "error":
                following = self._followed.get(response.error.operation_id)
                if following is not None:
                    self._refuse(following, _refusal(response.error))

    def _refuse(self, following: Following, error: MilepostError) -> None:
        if isinstance(error, AGAIN):
            loop = asyncio.get_running_loop()
            loop.call_later(LONGEST_PAUSE / 2, self.send_soon, following)
        else:
            following.refused(error)


def _refusal(item: pb.UpdateError) -> MilepostError:
    kind = error_class(item.reason, item.metadata)
    return kind(item.message, reason=item.reason, metadata=item.metadata)


def _interruption(item: pb.Interruption) -> MilepostError:
    """Return the error that a late report of the same work would be answered with."""
    operation_id = item.operation_id
    if item.kind == pb.INTERRUPTION_KIND_CANCELLED:
        facts = {"transition": "progress", "status": str(Status.CANCELLED)}
        message = f"operation {operation_id} was cancelled"
        return errors.Cancelled(message, reason="ILLEGAL_TRANSITION", metadata=facts)
    facts = {"operation_id": operation_id}
    if item.kind == pb.INTERRUPTION_KIND_EXPIRED:
        message = f"operation {operation_id} has expired"
        return errors.OperationExpired(message, reason="OPERATION_EXPIRED", metadata=facts)
    message = f"operation {operation_id} is not in the hands of this worker any more"
    return errors.StaleAttempt(message, reason="STALE_ATTEMPT", metadata=facts)
