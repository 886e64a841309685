"""The operations on the progress streams of this replica, and the flush of their progress."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Protocol

from milepost.domain.errors import Unavailable
from milepost.tracking.subscriptions import Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from milepost.domain.interruption import StatusSnapshot
    from milepost.domain.operation import AccessFilter, OperationId
    from milepost.tracking.progress_buffer import Commands, ProgressBuffer
    from milepost.tracking.progress_messages import ProgressUpdate
    from milepost.tracking.status_polls import StatusPolls
    from milepost.tracking.subscriptions import Subscriptions


class Clock(Protocol):
    """The clock and the timers of an event loop."""

    def time(self) -> float:
        """Return the seconds of a monotonic clock."""

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `callback` at the time `when`."""


class StreamedOperation(Subscriber):
    """One operation on one stream: its buffer, its running commit and its timer.

    Hands updates, notifications and status snapshots to the buffer, and its commands to the stream.
    """

    __slots__ = ("_clock", "_context", "_execute", "buffer", "commit", "timer")

    is_polled = False  # `StatusPolls` does it

    def __init__(
        self,
        buffer: ProgressBuffer,
        *,
        execute: Callable[[StreamedOperation, Commands], None],
        clock: Clock,
    ) -> None:
        """Begin without a commit and a timer.

        Args:
            buffer: of the operation.
            execute: carries out commands of the buffer.
            clock: of the buffer.
        """
        super().__init__()
        self.buffer = buffer
        self.commit: asyncio.Task[Exception | None] | None = None
        """The running commit, and the error that it ended with."""
        self.timer: asyncio.TimerHandle | None = None
        self._context = contextvars.copy_context()
        """Context of the reporting call; commits run in it, also if another call flushes them."""
        self._execute = execute
        self._clock = clock

    @property
    def id(self) -> OperationId:
        """The operation."""
        return self.buffer.id

    def notify(self) -> None:
        """See `Subscriber.notify`."""
        self._execute(self, self.buffer.notified())

    def receive_status(self, status_snapshot: StatusSnapshot | None) -> None:
        """See `Polled.receive_status`."""
        self._execute(self, self.buffer.status(status_snapshot, self._clock.time()))

    def update(self, update: ProgressUpdate) -> None:
        """Take an update of the worker."""
        self._execute(self, self.buffer.update(update, self._clock.time()))

    def finish(self) -> None:
        """Commit the pending update without waiting for the interval."""
        self._execute(self, self.buffer.finish(self._clock.time()))

    def begin(self, commit: Coroutine[None, None, Exception | None]) -> None:
        """Run a commit in the context of the reporting call."""
        self.stop_timer()
        self.commit = asyncio.create_task(commit, context=self._context)

    def commit_at(self, time: float) -> None:
        """Begin the commit of the pending update at this time."""
        self.timer = self._clock.call_at(time, self.commit_now)

    def commit_now(self) -> None:
        """Begin the commit of the pending update, if there is one and no commit runs."""
        self._execute(self, self.buffer.commit_now(self._clock.time()))

    async def flush(self) -> None:
        """Return when the pending update is committed or refused.

        Raises:
            StoreUnavailable, Overloaded: neither is possible now.
        """
        for _ in range(2):  # the running commit and the update behind it, not later ones
            self.commit_now()
            if self.commit is None:
                return
            (commit,), _pending = await asyncio.wait({self.commit})
            error = None if commit.cancelled() else commit.result()
            if isinstance(error, Unavailable):
                raise error

    def stop_timer(self) -> None:
        """Cancel the timer, if one is set."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def close(self) -> None:
        """Discard the pending update, and cancel the timer and the running commit."""
        self.stop_timer()
        self.buffer.close()
        if self.commit is not None:
            self.commit.cancel()


class StreamedOperations:
    """All operations on the streams of this replica. Fills the port `PendingProgress`."""

    def __init__(self, subscriptions: Subscriptions, polls: StatusPolls) -> None:
        """Subscribe operations to `subscriptions`; `polls` may hold requests of them."""
        self._subscriptions = subscriptions
        self._polls = polls
        self._operations: dict[OperationId, set[StreamedOperation]] = {}

    def add(self, operation: StreamedOperation) -> None:
        """Notify and flush the operation from now on."""
        self._operations.setdefault(operation.id, set()).add(operation)
        self._subscriptions.subscribe(operation.id, operation)

    def remove(self, operation: StreamedOperation) -> None:
        """Notify, poll and flush the operation no more."""
        self._polls.discard(operation)
        self._subscriptions.unsubscribe(operation.id, operation)
        group = self._operations[operation.id]
        group.discard(operation)
        if not group:
            del self._operations[operation.id]

    async def flush(self, operation_id: OperationId, access_filter: AccessFilter) -> None:
        """Commit what is pending of an operation that the filter covers. See `PendingProgress`.

        For other operations nothing happens: the duration reveals nothing about them.
        """
        pending = [
            operation
            for operation in self._operations.get(operation_id, ())
            if operation.buffer.must_flush
            and access_filter.covers(
                owner=operation.buffer.owner, function=operation.buffer.function
            )
        ]
        for operation in pending:
            await operation.flush()
