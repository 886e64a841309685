"""Progress of one operation on one stream: what to commit when, and what to send to the worker.

The buffer is a state machine without I/O. Its inputs are updates, results of commits, status
snapshots, notifications and the clock; every input returns the commands that follow from it.
`ProgressStream` executes them. Whatever a worker sends, the buffer holds at most one pending update
and asks for at most one commit at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from milepost.domain.errors import (
    IllegalTransition,
    OperationNotFound,
    ProgressDecrease,
    StaleAttempt,
)
from milepost.domain.interruption import InterruptionKind
from milepost.domain.transitions import TERMINAL, is_decrease
from milepost.tracking.progress_messages import (
    Acknowledgement,
    Interruption,
    Item,
    ProgressUpdate,
    UpdateError,
)

if TYPE_CHECKING:
    from milepost.domain.interruption import StatusSnapshot
    from milepost.domain.operation import Operation, OperationId

INTERRUPTED_BY: Final = (IllegalTransition, StaleAttempt)
"""Errors of a commit that an interruption may have caused; the status shows which one."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Commit this update now, and pass the result to `committed` or `failed`."""

    update: ProgressUpdate


@dataclass(frozen=True, slots=True)
class CommitAt:
    """Call `commit_now` at this time, unless a commit begins before."""

    time: float


class Signal(Enum):
    """A command without a value."""

    POLL = auto()
    """Read the status of the operation soon, and pass it to `status`."""
    DROP = auto()
    """Remove the buffer: it holds nothing and needs nothing any more."""


class Count(Enum):
    """A command to count an update in the metrics."""

    COALESCED = auto()
    COMMITTED = auto()
    REFUSED = auto()

    __hash__ = object.__hash__  # that of Enum is Python code, and updates are counted one by one


Command = Commit | CommitAt | Signal | Count | Item
"""An item is a command too: send it to the worker."""
Commands = tuple[Command, ...]

_COALESCED: Final[Commands] = (Count.COALESCED,)


class ProgressBuffer:
    """The updates of one worker for one operation.

    Times are seconds of a monotonic clock. After `Signal.DROP` no input returns a command.
    """

    __slots__ = (
        "_interval",
        "_is_asked_to_stop",
        "_is_committing",
        "_is_finished",
        "_next_commit_time",
        "_notifications",
        "_pending",
        "attempt",
        "function",
        "id",
        "is_known",
        "owner",
        "revision",
        "seen_time",
    )

    def __init__(self, operation_id: OperationId, *, interval: float) -> None:
        """Commit at most once in `interval` seconds."""
        self.id = operation_id
        self.is_known = False
        """True once an update is committed. Before, the worker may not be allowed to touch it."""
        self.owner = self.function = ""
        self.revision = 0
        self.attempt: int | None = None
        self.seen_time = 0.0
        """Time of the last commit or status snapshot."""
        self._interval = interval
        self._pending: ProgressUpdate | None = None
        self._is_committing = False
        self._is_finished = False
        self._is_asked_to_stop = False
        """True once the worker was notified that a cancel is requested."""
        self._next_commit_time = 0.0
        self._notifications = 0
        """Notifications since the running commit began."""

    @property
    def is_busy(self) -> bool:
        """Return whether an update is not committed yet."""
        return self._pending is not None or self._is_committing

    @property
    def must_flush(self) -> bool:
        """Return whether a terminal transition must wait for the pending update.

        An update of the next attempt may be pending after one of the last attempt was refused.
        Without an owner no commit has succeeded, and the worker may be a stranger.
        """
        return self._pending is not None and bool(self.owner)

    def update(self, update: ProgressUpdate, now: float) -> Commands:
        """Take an update of the worker.

        The first update is committed at once, and so is one that follows a quiet interval. Later
        ones are coalesced. Progress below that of the pending update is refused, as it would be
        after the commit.
        """
        pending = self._pending
        if pending is None:
            self._pending = update
            return self._schedule(now)
        if pending.attempt == update.attempt and is_decrease(update.progress, pending.progress):
            error = ProgressDecrease(current=pending.progress, requested=update.progress)
            return (Count.REFUSED, UpdateError(id=self.id, error=error))
        self._pending = pending.coalesced_with(update)
        return _COALESCED  # the commit of the pending update is scheduled already

    def commit_now(self, now: float) -> Commands:
        """Commit the pending update before or at the end of the interval.

        While a commit runs, the pending update is scheduled when that ends.
        """
        if self._is_committing or self._pending is None:
            return ()
        update, self._pending = self._pending, None
        self._is_committing = True
        self._notifications = 0
        self._next_commit_time = now + self._interval
        return (Commit(update),)

    def finish(self, now: float) -> Commands:
        """Commit without waiting for the interval from now on: the worker sends no more."""
        self._is_finished = True
        return self.commit_now(now)

    def close(self) -> None:
        """Discard the pending update: the stream is gone."""
        self._pending = None
        self.is_known = False

    def committed(self, operation: Operation, now: float) -> Commands:
        """Take the result of the running commit."""
        self._is_committing = False
        self.is_known = True
        self.owner, self.function = operation.owner, operation.function
        self.revision, self.attempt = operation.revision, operation.attempt
        self.seen_time = now
        acknowledgement = Acknowledgement(
            id=self.id,
            revision=operation.revision,
            attempt=operation.attempt,
            lease_expire_time=operation.lease_expire_time,
        )
        asked = self._asked_to_stop(operation.revision) if operation.cancel_request_time else ()
        # The commit itself caused one notification.
        return (Count.COMMITTED, acknowledgement, *asked, *self._after_commit(now, own=1))

    def failed(
        self,
        update: ProgressUpdate,
        error: Exception,
        status_snapshot: StatusSnapshot | None,
        now: float,
    ) -> Commands:
        """Take the error of the running commit.

        Args:
            update: refused with the error.
            error: of the commit.
            status_snapshot: read after an error of `INTERRUPTED_BY`, else None.
            now: current time.
        """
        self._is_committing = False
        if isinstance(error, (*INTERRUPTED_BY, OperationNotFound)):
            self.is_known = False
        interruption = self._interruption(status_snapshot, update.attempt or self.attempt)
        if interruption is not None and interruption.kind is InterruptionKind.CANCEL_REQUESTED:
            interruption = None  # it does not explain the error
        item = interruption or UpdateError(id=self.id, error=error)
        return (Count.REFUSED, item, *self._after_commit(now, own=0))

    def notified(self) -> Commands:
        """Take a notification of a transition. It may be the one of the running commit."""
        self._notifications += 1
        return () if self._is_committing else self._poll_if_notified(own=0)

    def status(self, status_snapshot: StatusSnapshot | None, now: float) -> Commands:
        """Take the status that was polled; None means that the operation is gone."""
        if self._is_committing:
            self._notifications += 2  # the snapshot may be older than the commit: poll again after
            return ()
        if not self.is_known:
            return ()
        self.seen_time = now
        if status_snapshot is None:
            return (UpdateError(id=self.id, error=OperationNotFound(self.id)), *self._drop())
        return self._follow(status_snapshot, now)

    def _follow(self, status_snapshot: StatusSnapshot, now: float) -> Commands:
        """Stop if the operation is no longer in the hands of the worker."""
        if status_snapshot.revision <= self.revision:  # nothing since the last commit
            return ()
        if (item := self._interruption(status_snapshot, self.attempt)) is not None:
            if item.kind is InterruptionKind.CANCEL_REQUESTED:
                return self._asked_to_stop(item.revision)
            return (item, *self._drop())
        if status_snapshot.status not in TERMINAL:
            return ()
        # A pending update is too late: its commit is refused with the reason.
        return self.commit_now(now) or self._drop()

    def _asked_to_stop(self, revision: int) -> Commands:
        """Tell the worker once that a cancel is requested; it still holds the operation."""
        if self._is_asked_to_stop:
            return ()
        self._is_asked_to_stop = True
        kind = InterruptionKind.CANCEL_REQUESTED
        return (Interruption(id=self.id, kind=kind, revision=revision),)

    def _schedule(self, now: float) -> Commands:
        """Commit the pending update at the end of the interval, unless a commit runs."""
        if self._is_committing:
            return ()
        if self._is_finished or now >= self._next_commit_time:
            return self.commit_now(now)
        return (CommitAt(self._next_commit_time),)

    def _after_commit(self, now: float, *, own: int) -> Commands:
        poll = self._poll_if_notified(own)
        if self._pending is not None:
            return poll + self._schedule(now)
        return poll if self.is_known else self._drop()

    def _poll_if_notified(self, own: int) -> Commands:
        """Poll after more notifications than the buffer's `own` commit has caused."""
        notifications, self._notifications = self._notifications, 0
        return (Signal.POLL,) if notifications > own and self.is_known else ()

    def _drop(self) -> Commands:
        self.close()
        return (Signal.DROP,)

    def _interruption(
        self, status_snapshot: StatusSnapshot | None, attempt: int | None
    ) -> Interruption | None:
        if status_snapshot is None or (kind := status_snapshot.interruption(attempt)) is None:
            return None
        return Interruption(id=self.id, kind=kind, revision=status_snapshot.revision)
