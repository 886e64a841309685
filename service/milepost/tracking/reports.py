"""One operation on a progress stream: what of it is to be committed, and when.

Whatever a worker sends, an operation costs its stream the same: one update that waits, one commit
that runs, one timer.
"""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from milepost import telemetry
from milepost.domain.errors import (
    IllegalTransition,
    OperationNotFound,
    ProgressDecrease,
    StaleAttempt,
    Unavailable,
)
from milepost.domain.transitions import TERMINAL, is_decrease
from milepost.tracking.subscriptions import Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from milepost.domain.interruption import InterruptionKind, StatusSnapshot
    from milepost.domain.operation import Operation, OperationId
    from milepost.domain.transitions import TransitionResult

OWN_HINT: Final = 1
"""A commit of its own wakes a report once; any further hint comes from somebody else."""


class Clock(Protocol):
    """What an event loop knows of time."""

    def time(self) -> float:
        """Return seconds that never go back."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back after `delay` seconds."""


class Update(NamedTuple):
    """How far a worker says one operation is. Absent means: as before.

    A tuple: one is made of every message, and another one where two become one.
    """

    id: OperationId
    attempt: int | None = None
    progress: float | None = None
    message: str | None = None

    def after(self, earlier: Update) -> Update:
        """Return both as one: the newest of each part is kept."""
        if earlier.attempt != self.attempt:
            return self
        progress, before = self.progress, earlier.progress
        if progress is None or (before is not None and before > progress):
            progress = before  # a forgiven dip keeps the larger value
        message = earlier.message if self.message is None else self.message
        return Update(self.id, self.attempt, progress, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """Progress of an operation is committed, up to this revision."""

    id: OperationId
    revision: int
    attempt: int
    lease_expire_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """The work on an operation must stop."""

    id: OperationId
    kind: InterruptionKind
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An update was refused, for the reason that the unary call would give."""

    id: str
    """As the worker named it, however malformed."""
    error: Exception


Item = Acknowledgement | Interruption | Refused


class Outlet(Protocol):
    """What a report needs of its stream."""

    clock: Clock
    interval: float
    """Seconds between two commits of one operation."""
    ending: bool
    """Whether what is held back is to be committed at once."""
    coalesced: int
    """How many updates were merged with later ones."""

    async def commit(self, update: Update) -> TransitionResult:
        """Make the update durable."""

    async def status_snapshot(self, operation_id: OperationId) -> StatusSnapshot | None:
        """Return how the operation stands, or nothing if that cannot be found out."""

    def tell(self, item: Item) -> None:
        """Let the worker know."""

    def look(self, report: Report) -> None:
        """Find out soon what has become of the operation."""

    def hold(self, report: Report) -> None:
        """The report holds progress back."""

    def release(self, report: Report) -> None:
        """The report holds nothing back any more."""

    def drop(self, report: Report) -> None:
        """Forget the report."""


class Report(Subscriber):
    """The reports of one worker on one operation."""

    __slots__ = (
        "_commit",
        "_context",
        "_due",
        "_hints",
        "_outlet",
        "_pending",
        "_timer",
        "attempt",
        "function",
        "held_at",
        "id",
        "known",
        "owner",
        "revision",
    )

    def __init__(self, outlet: Outlet, operation_id: OperationId) -> None:
        """Nothing was reported yet, and nothing is known of the operation."""
        super().__init__()
        self._outlet = outlet
        self._context = contextvars.copy_context()
        """The call that reports, whoever else's call makes its progress be committed."""
        self.id = operation_id
        self.known = False
        """Whether anything was committed: only then it is this worker's business."""
        self.owner = self.function = ""
        self.revision = 0
        self.attempt: int | None = None
        self.held_at = 0.0
        """When the operation was last known to be in this worker's hands."""
        self._pending: Update | None = None
        self._commit: asyncio.Task[Exception | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._hints = 0

    @property
    def busy(self) -> bool:
        """Whether something is not committed yet."""
        return self._pending is not None or self._commit is not None

    def take(self, update: Update) -> None:
        """Commit the update now, or with the newest one when it is time."""
        pending = self._pending
        if pending is None:
            self._pending = update
            if self.known:
                self._outlet.hold(self)
        elif pending.attempt == update.attempt and is_decrease(update.progress, pending.progress):
            error = ProgressDecrease(current=pending.progress, requested=update.progress)
            telemetry.update_refused()
            self._outlet.tell(Refused(id=self.id, error=error))
            return
        else:
            self._pending = update.after(pending)
            self._outlet.coalesced += 1
            if self._timer is not None:
                return  # it is arranged already
        self.arrange()

    def arrange(self) -> None:
        """See to it that what is pending is committed when it is time."""
        if self._pending is None or self._commit is not None:
            return  # when a commit is done, this is asked again
        wait = self._due - self._outlet.clock.time()
        if wait <= 0 or self._outlet.ending:
            self._begin()
        elif self._timer is None:
            self._timer = self._outlet.clock.call_later(wait, self._begin)

    async def flush(self) -> None:
        """See `Holder.flush`."""
        for _ in range(2):  # what runs and what waits behind it, not what comes meanwhile
            self._begin()
            if self._commit is None:
                return
            (done,), _pending = await asyncio.wait({self._commit})
            error = None if done.cancelled() else done.result()
            if isinstance(error, Unavailable):
                raise error

    def wake(self) -> None:
        """Somebody moved the operation: look, unless it was this report itself."""
        self._hints += 1
        if self._commit is None:
            self._look_beyond(0)

    def found(self, status_snapshot: StatusSnapshot | None) -> None:
        """Tell the worker if the operation is no longer in its hands."""
        if self._commit is not None:  # it knows better; look again when it is done
            self._hints += OWN_HINT + 1
            return
        self.held_at = self._outlet.clock.time()
        if status_snapshot is None:
            self._outlet.tell(Refused(id=self.id, error=OperationNotFound(self.id)))
            self._outlet.drop(self)
        elif status_snapshot.revision >= self.revision:
            self._judge(status_snapshot)

    def _judge(self, status_snapshot: StatusSnapshot) -> None:
        kind = status_snapshot.interruption(self.attempt)
        if kind is not None:
            self._outlet.tell(
                Interruption(id=self.id, kind=kind, revision=status_snapshot.revision)
            )
            self._outlet.drop(self)
        elif status_snapshot.status in TERMINAL and self._pending is None:
            self._outlet.drop(self)
        elif (
            status_snapshot.status in TERMINAL
        ):  # what is pending came too late: let the store say why
            self._begin()

    def close(self) -> None:
        """Let go of everything; what is pending is not committed."""
        self._stop_timer()
        self._pending = None
        if self._commit is not None:
            self._commit.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        self._stop_timer()
        if self._commit is not None or self._pending is None:
            return
        update, self._pending = self._pending, None
        self._outlet.release(self)
        self._hints = 0
        self._due = self._outlet.clock.time() + self._outlet.interval
        self._commit = asyncio.create_task(self._run(update), context=self._context)

    async def _run(self, update: Update) -> Exception | None:
        """Commit the update, and tell what came of it. Return the error it was refused with."""
        refusal: Exception | None = None
        try:
            outcome = await self._outlet.commit(update)
        except Exception as error:  # noqa: BLE001 - one operation must not end the stream
            refusal = error
            await self._refused(update, error)
            expected = 0
        else:
            self._committed(outcome.operation)
            expected = OWN_HINT
        self._commit = None
        self._look_beyond(expected)
        if self._pending is not None:
            self.arrange()
        elif not self.known:
            self._outlet.drop(self)
        return refusal

    def _look_beyond(self, expected: int) -> None:
        """Have a look if there were more hints than those of this report itself."""
        notifications, self._hints = self._hints, 0
        if notifications > expected and self.known:
            self._outlet.look(self)

    def _committed(self, operation: Operation) -> None:
        telemetry.update_committed()
        self.known = True
        self.owner, self.function = operation.owner, operation.function
        self.revision, self.attempt = operation.revision, operation.attempt
        self.held_at = self._outlet.clock.time()
        if self._pending is not None:
            self._outlet.hold(self)
        self._outlet.tell(
            Acknowledgement(
                id=self.id,
                revision=operation.revision,
                attempt=operation.attempt,
                lease_expire_time=operation.lease_expire_time,
            )
        )

    async def _refused(self, update: Update, error: Exception) -> None:
        """Tell the worker why: an interruption if that is what is behind it."""
        telemetry.update_refused()
        item: Item = Refused(id=self.id, error=error)
        if isinstance(error, IllegalTransition | StaleAttempt):
            status_snapshot = await self._outlet.status_snapshot(self.id)
            kind = status_snapshot and status_snapshot.interruption(update.attempt or self.attempt)
            if status_snapshot and kind:
                item = Interruption(id=self.id, kind=kind, revision=status_snapshot.revision)
        if isinstance(error, IllegalTransition | StaleAttempt | OperationNotFound):
            self.known = False
        self._outlet.tell(item)
