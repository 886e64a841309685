"""The progress stream that all work of a client shares: it reconnects, and renews all leases.

Reports leave it in the order of their urgency: first the operation whose lease runs out first.
Reports that are due share a message, and the next one follows after a short pause. After a
disconnection the newest report of every operation is sent again, because the service notifies a
stream of a cancel only if the operation was reported on it. After a rate limit the reports wait for
a while, and only leases are renewed, which the service does not limit.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from math import inf
from operator import attrgetter
from typing import Final

import grpc

from milepost_client import errors
from milepost_client.calls import Calls, ProgressCall
from milepost_client.disruption import is_disruption
from milepost_client.errors import MilepostError
from milepost_client.gen.milepost.v1 import worker_service_pb2 as pb
from milepost_client.held_operation import HeldOperation
from milepost_client.operation import Operation, Status
from milepost_client.pace import Backoff
from milepost_client.refusal import decoded, error_class, rebuild
from milepost_client.retry import is_temporary

STEADY_S: Final = 10.0
"""Life of a stream after which the pauses begin anew."""
MIN_LIMITED_PAUSE_S: Final = 0.25
"""Shortest pause after a rate limit, if a lease is to be renewed before the reports may go on."""
PACE_S: Final = 0.05
"""Time between two messages: what is reported within it is one message."""
MAX_UPDATES: Final = 1_000
"""Updates of one message, as many as the service accepts."""
MAX_MESSAGE_BYTES: Final = 512 * 1024
"""Size of a message of several updates. The largest update alone has less."""
CLOSE_TIMEOUT_S: Final = 5.0
"""How long `close` waits for the acknowledgements of the last reports."""

log: Final = logging.getLogger("milepost_client.progress_stream")


class ProgressStream:
    """A stream that opens for held operations. Create it in an event loop.

    It stays open when the last operation is dropped. When it ends, it is opened again as soon as
    operations are held.
    """

    def __init__(self, calls: Calls) -> None:
        """Open nothing yet."""
        self._calls = calls
        self._held: dict[str, HeldOperation] = {}
        self._unsent: dict[str, HeldOperation] = {}
        self._next_due_time = inf
        self._quiet_end_time = -inf
        """Time until which only leases are renewed, after a rate limit."""
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()
        self._was_answered = False
        self._running: asyncio.Task[None] | None = None

    def hold(
        self,
        operation: Operation,
        on_over: Callable[[MilepostError], None],
        on_cancel_request: Callable[[], None],
    ) -> HeldOperation:
        """Renew the lease of the operation from now on, and watch for its cancel.

        An earlier attempt of the operation is over: its work gets `StaleAttempt`.

        Args:
            operation: The operation, in the attempt of this worker.
            on_over: Called once, with the reason, when the work must stop.
            on_cancel_request: Called once, when a cancel is requested.
        """
        earlier = self._held.get(operation.id)
        if earlier is not None:
            earlier.refuse(_stale_attempt(operation.id))
        held = HeldOperation(self, operation, on_over, on_cancel_request)
        self._held[held.id] = held
        self._next_due_time = min(self._next_due_time, held.due_time)
        self._wake()
        return held

    def enqueue(self, held: HeldOperation) -> None:
        """Send the newest report of the operation soon, if it is still held."""
        if self._held.get(held.id) is held:
            self._unsent[held.id] = held
            self._wake()

    def drop(self, held: HeldOperation) -> None:
        """Send nothing more about the operation."""
        if self._held.get(held.id) is held:
            del self._held[held.id]
            self._unsent.pop(held.id, None)

    async def close(self) -> None:
        """Send the last reports, and wait a bounded time for their acknowledgements."""
        self._closing.set()
        self._changed.set()
        if self._running is not None:
            await asyncio.wait({self._running}, timeout=CLOSE_TIMEOUT_S)
            self._running.cancel()
            await asyncio.wait({self._running})

    def _wake(self) -> None:
        self._changed.set()
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        backoff = Backoff()
        is_limited = False
        while not self._closing.is_set():
            if not self._held:
                self._changed.clear()
                await self._changed.wait()
                continue
            self._was_answered, open_time = False, clock()
            error = await self._exchange()
            is_limited = isinstance(error, errors.LimitReached) or (is_limited and _is_vague(error))
            is_steady = clock() - open_time > STEADY_S
            is_lost = self._was_answered and _is_away(error) and not _is_vague(error)
            if is_steady or (is_lost and not is_limited):
                backoff.reset()
            if self._closing.is_set():
                return
            pause_s = backoff.pause_s(error)
            if error is not None:
                level = logging.INFO if is_temporary(error) else logging.WARNING
                log.log(level, "the progress stream ended: %s; next in %.2f s", error, pause_s)
            end_time = clock() + pause_s
            self._quiet_end_time = end_time if is_limited else -inf
            self._enqueue_again(everything=not is_limited)
            if is_limited:
                due_time = min((held.due_time for held in self._held.values()), default=inf)
                end_time = min(end_time, max(due_time, clock() + MIN_LIMITED_PAUSE_S))
            await self._wait(self._closing, end_time)
            self._next_due_time = -inf  # time has passed without a look at the leases

    def _enqueue_again(self, *, everything: bool) -> None:
        """Send again what the last stream may have lost, or everything."""
        for held in self._held.values():
            if everything or held.is_unanswered:
                self._unsent[held.id] = held
                held.lose_acknowledgements()

    async def _exchange(self) -> MilepostError | None:
        """Hold one stream, from the first report to its end; return the reason of the end."""
        try:
            call = await self._calls.stream_progress()
        except MilepostError as error:  # of the token source
            return error
        writing = asyncio.create_task(self._write(call))
        try:
            # The end of the stream may meet the read: then the error says nothing about it.
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                while isinstance(response := decoded(await call.read()), pb.StreamProgressResponse):
                    self._was_answered = True
                    self._take(response)
            return await _end_reason(call)
        except errors.UndecodableAnswer as error:
            return error
        finally:
            call.cancel()
            writing.cancel()
            await asyncio.wait({writing})
            if not writing.cancelled():
                writing.exception()  # the end of the writing has ended the reading too

    async def _write(self, call: ProgressCall) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self._changed.clear()
            self._enqueue_due(clock())
            if updates := self._due_updates(clock()):
                await call.write(pb.StreamProgressRequest(updates=updates))
                await self._wait(self._closing, clock() + PACE_S)
            elif self._closing.is_set():
                break
            else:
                await self._wait(self._changed, self._next_due_time)
        await call.done_writing()

    def _due_updates(self, now: float) -> list[pb.ProgressUpdate]:
        """Take the updates of the next message, the most urgent ones first."""
        is_quiet = now < self._quiet_end_time and not self._closing.is_set()
        updates: list[pb.ProgressUpdate] = []
        size = 0
        for held in sorted(self._ready(now, is_quiet=is_quiet), key=attrgetter("lease_end_time")):
            size += held.update.ByteSize()
            if updates and (size > MAX_MESSAGE_BYTES or len(updates) == MAX_UPDATES):
                break
            if held.unstored is None or not is_quiet:
                del self._unsent[held.id]
            updates.append(held.take(now, bare=is_quiet))
            self._next_due_time = min(self._next_due_time, held.due_time)
        return updates

    def _ready(self, now: float, *, is_quiet: bool) -> list[HeldOperation]:
        """Return the operations with something to send now; note when the others have."""
        ready = []
        for held in self._unsent.values():
            if is_quiet:
                time = min(held.due_time, self._quiet_end_time)
                is_ready = held.early_time <= now
            else:
                time = held.ready_time
                is_ready = time <= now or self._closing.is_set()
            if is_ready:
                ready.append(held)
            else:
                self._next_due_time = min(self._next_due_time, time)
        return ready

    def _enqueue_due(self, now: float) -> None:
        """Enqueue the operations whose leases are to be renewed, if there is one."""
        if now < self._next_due_time:
            return
        self._next_due_time = inf
        for held in self._held.values():
            if held.early_time <= now:
                self._unsent[held.id] = held
            else:
                self._next_due_time = min(self._next_due_time, held.due_time)

    async def _wait(self, event: asyncio.Event, end_time: float) -> None:
        """Return when the event is set, or at the time."""
        # Not wait_for: if its task is cancelled before it has begun, Python warns.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end_time):
                await event.wait()

    def _take(self, response: pb.StreamProgressResponse) -> None:
        """Pass what the service says on to the operations that it is about."""
        for acknowledgement in response.acknowledgements:
            self._acknowledge(acknowledgement)
        match response.WhichOneof("item"):
            case "acknowledgement":
                self._acknowledge(response.acknowledgement)
            case "interruption":
                self._interrupt(response.interruption)
            case "error":
                self._refuse(response.error)

    def _acknowledge(self, item: pb.Acknowledgement) -> None:
        held = self._held.get(item.operation_id)
        if held is None or item.attempt not in {0, held.attempt}:
            return
        held.acknowledge()
        if held.id in self._unsent:
            self._changed.set()  # a newer report has waited for this

    def _interrupt(self, item: pb.Interruption) -> None:
        held = self._held.get(item.operation_id)
        if held is None or item.revision <= held.revision:  # of an earlier attempt
            return
        if item.kind == pb.INTERRUPTION_KIND_CANCEL_REQUESTED:
            held.request_cancel()
        else:
            held.refuse(_interruption(item))

    def _refuse(self, item: pb.UpdateError) -> None:
        held = self._held.get(item.operation_id)
        if held is None or _is_about_another_attempt(item, held):
            return
        error = _refusal(item)
        if is_temporary(error) or isinstance(error, errors.StreamFull):
            held.note_refusal()
            loop = asyncio.get_running_loop()
            loop.call_later(held.backoff.pause_s(error), self.enqueue, held)
        else:
            held.refuse(error)


def _is_away(error: MilepostError | None) -> bool:
    """Return True if the stream ended because the service cannot be reached."""
    return isinstance(error, errors.Unavailable) or (error is not None and is_disruption(error))


def _is_vague(error: MilepostError | None) -> bool:
    """Return True if a write failed before gRPC knew the reason, which was the earlier one."""
    return isinstance(error, errors.InternalError) and not error.reason


async def _end_reason(call: ProgressCall) -> MilepostError | None:
    """Return the refusal that ended the stream, or None if it ended well."""
    code = await call.code()
    if code is grpc.StatusCode.OK:
        return None
    metadata = await call.initial_metadata(), await call.trailing_metadata()
    return rebuild(grpc.aio.AioRpcError(code, *metadata, details=await call.details()))


def _refusal(item: pb.UpdateError) -> MilepostError:
    kind = error_class(item.reason, item.metadata)
    return kind(item.message, reason=item.reason, metadata=item.metadata)


def _is_about_another_attempt(item: pb.UpdateError, held: HeldOperation) -> bool:
    """Return True if the error is certainly the answer to an earlier attempt of the operation."""
    attempt = str(held.attempt)
    return item.reason == "STALE_ATTEMPT" and item.metadata.get("expected", attempt) != attempt


def _interruption(item: pb.Interruption) -> MilepostError:
    """Return the error that a later report of the same work would be refused with."""
    operation_id = item.operation_id
    if item.kind == pb.INTERRUPTION_KIND_CANCELLED:
        facts = {"transition": "progress", "status": str(Status.CANCELLED)}
        message = f"operation {operation_id} was cancelled"
        return errors.Cancelled(message, reason="ILLEGAL_TRANSITION", metadata=facts)
    facts = {"operation_id": operation_id}
    if item.kind == pb.INTERRUPTION_KIND_EXPIRED:
        message = f"operation {operation_id} has expired"
        return errors.OperationExpired(message, reason="OPERATION_EXPIRED", metadata=facts)
    return _stale_attempt(operation_id)


def _stale_attempt(operation_id: str) -> MilepostError:
    message = f"operation {operation_id} is no longer held by this worker"
    facts = {"operation_id": operation_id}
    return errors.StaleAttempt(message, reason="STALE_ATTEMPT", metadata=facts)
