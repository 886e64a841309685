"""One operation on the progress stream: its newest report, and the lease that reports renew."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Final, NamedTuple, Protocol

from google.protobuf.any_pb2 import Any as Packed

from milepost_client.errors import OVER, MilepostError
from milepost_client.gen.milepost.v1 import worker_service_pb2 as pb
from milepost_client.operation import Operation
from milepost_client.pace import Backoff

DEFAULT_LEASE_S: Final = 30.0
"""The assumed lease of an operation without one, which is still watched for a cancel."""
FIRST_REPORT_DELAY_S: Final = 0.2
"""The delay of the first report, which makes the service watch for a cancel: work that ends before
needs none."""
SEND_TIMEOUT_S: Final = 0.5
"""How long the end of work waits for the stream to take its last checkpoint."""
RENEWALS_PER_LEASE: Final = 3
"""Renewals per lease: two may be lost before the lease is."""
EARLY_SHARE: Final = 0.1
"""Share of the time between two renewals by which one may come early, together with others."""
MAX_ANSWER_S: Final = 2.0
"""How long a newer report waits for the answer to the last one."""


class Outbox(Protocol):
    """The part of the progress stream that an operation needs."""

    def enqueue(self, held: "HeldOperation") -> None:
        """Send the newest report soon."""

    def drop(self, held: "HeldOperation") -> None:
        """Send nothing more about the operation."""


class SentReport(NamedTuple):
    """A report that was sent: its version, and the time."""

    version: int
    time: float


class HeldOperation:
    """An operation whose work is reported on the stream, from `ProgressStream.hold` to `close`.

    Only the newest report is kept. Times are those of the event loop, in seconds.
    """

    def __init__(
        self,
        outbox: Outbox,
        operation: Operation,
        on_over: Callable[[MilepostError], None],
        on_cancel_request: Callable[[], None],
    ) -> None:
        """Hold the operation; see `ProgressStream.hold`."""
        self._outbox = outbox
        self._on_over = on_over
        self._on_cancel_request = on_cancel_request
        self._is_cancel_requested = False
        self._problem: MilepostError | None = None
        self.update = pb.ProgressUpdate(operation_id=operation.id, attempt=operation.attempt)
        """The newest report."""
        self.revision = operation.revision
        """The revision at the start of the attempt; its interruptions have later ones."""
        self.lease_s = _lease_s(operation)
        self.backoff = Backoff()
        """The pauses after temporary refusals of a report."""
        self._version = self._sent_version = self._stored_version = self._checkpoint_version = 0
        self._is_closed = self._is_urgent = False
        self._taken, self._answered = asyncio.Event(), asyncio.Event()
        self._renewal_time = asyncio.get_running_loop().time()
        self.due_time = self._renewal_time + min(FIRST_REPORT_DELAY_S, self._interval_s)
        """Time at which the lease is to be renewed, if nothing is reported before."""
        self.early_time = self.due_time
        """Time from which the lease may be renewed together with others."""
        self._unanswered: deque[SentReport] = deque()

    @property
    def id(self) -> str:
        """The id of the operation."""
        return self.update.operation_id

    @property
    def attempt(self) -> int:
        """The attempt of this worker."""
        return self.update.attempt

    @property
    def _interval_s(self) -> float:
        return self.lease_s / RENEWALS_PER_LEASE

    @property
    def lease_end_time(self) -> float:
        """Time at which the lease may run out: the smaller, the more urgent is a report."""
        return self._renewal_time + self.lease_s

    @property
    def ready_time(self) -> float:
        """Time from which a report may be sent.

        A newer one waits for the answer to the last one: so an answer is that of one report, and
        says that this one is stored. The service commits one report a second, and would coalesce
        the others.
        """
        if not self._unanswered or self._is_urgent:
            return -inf
        return min(self._unanswered[-1].time + MAX_ANSWER_S, self.due_time)

    @property
    def is_unanswered(self) -> bool:
        """True while a report that was sent may have no answer."""
        return bool(self._unanswered)

    @property
    def unstored(self) -> pb.ProgressUpdate | None:
        """The newest report, or None if it was acknowledged since it was sent."""
        return self.update if self._version > self._stored_version else None

    async def report(
        self,
        progress: float | None = None,
        message: str | None = None,
        checkpoint: Packed | None = None,
    ) -> None:
        """Send this as soon as possible; it replaces a report that was not sent yet.

        Raises:
            MilepostError: An earlier report was refused, or the work must stop.
        """
        self._raise_problem()
        if progress is not None:
            self.update.progress = progress
        if message is not None:
            self.update.message = message
        self._version += 1
        if checkpoint is not None:
            self.update.checkpoint.CopyFrom(checkpoint)
            self._checkpoint_version = self._version
        self._outbox.enqueue(self)
        await asyncio.sleep(0)  # lets the stream run, however busy the work is

    async def flush(self) -> None:
        """Return when everything that was reported so far is stored.

        Raises:
            MilepostError: A report was refused, or the work must stop.
        """
        version = self._version
        while True:
            self._raise_problem()
            if self._stored_version >= version:
                return
            if self._is_closed:
                raise RuntimeError(f"the work on {self.id} is over: its last report may be lost")
            self._answered.clear()
            await self._answered.wait()
            if self._stored_version < version:
                self._outbox.enqueue(self)

    async def send(self) -> None:
        """Return when the newest report is on the stream, or after `SEND_TIMEOUT_S`.

        A call that stores it afterwards is not undone by an earlier one that is on the stream.
        """
        self._is_urgent = True
        self._outbox.enqueue(self)
        with suppress(TimeoutError):
            async with asyncio.timeout(SEND_TIMEOUT_S):
                while self._sent_version < self._version and not self._is_closed:
                    self._taken.clear()
                    await self._taken.wait()

    def _raise_problem(self) -> None:
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def take(self, now: float, *, bare: bool = False) -> pb.ProgressUpdate:
        """Return the newest report, or a mere renewal if that is stored; it is sent now.

        Args:
            now: Current time.
            bare: Return a mere renewal in any case, which the service does not count as a write.
        """
        self.due_time = now + self._interval_s
        self.early_time = self.due_time - self._interval_s * EARLY_SHARE
        report = None if bare else self.unstored
        version = self._stored_version if report is None else self._version
        self._unanswered.append(SentReport(version, now))
        self._sent_version = max(self._sent_version, version)
        self._is_urgent = False
        self._taken.set()
        if report is not None:
            return report
        return pb.ProgressUpdate(operation_id=self.id, attempt=self.attempt)

    def acknowledge(self) -> None:
        """Note that the service has stored a report, and renewed the lease with it.

        One acknowledgement may answer several reports. Only the oldest one is certainly stored.
        """
        if self._unanswered:
            oldest = self._unanswered.popleft()
            self._settle(oldest.version)
            self._renewal_time = oldest.time
        self.backoff.reset()

    def _settle(self, version: int) -> None:
        """Note that this version is stored. A stored checkpoint is not sent again."""
        self._stored_version = max(self._stored_version, version)
        if self._stored_version >= self._checkpoint_version:
            self.update.ClearField("checkpoint")
        self._answered.set()

    def note_refusal(self) -> None:
        """Note that a report was refused for now: it has its answer."""
        if self._unanswered:
            self._unanswered.popleft()

    def lose_acknowledgements(self) -> None:
        """Note that the stream has ended: what was sent on it is not acknowledged any more."""
        if self._unanswered:
            self.due_time = min(self.due_time, self._renewal_time + self._interval_s)
            self.early_time = min(self.early_time, self.due_time)
        self._unanswered.clear()

    def settle(self) -> None:
        """Note that the newest report was stored by a call."""
        self._settle(self._version)

    def request_cancel(self) -> None:
        """Note that a cancel is requested. The next report tells the service that this is known."""
        if not self._is_cancel_requested:
            self._is_cancel_requested = self._is_urgent = True
            self._on_cancel_request()
            self._outbox.enqueue(self)

    def only_renew(self) -> None:
        """Send no report but renewals: the work is ending."""
        self.due_time = max(self.due_time, self._renewal_time + self._interval_s)
        self.early_time = max(self.early_time, self.due_time)

    def refuse(self, error: MilepostError) -> None:
        """Note that a report was refused for good. The next call of `report` raises the error."""
        self.note_refusal()
        self._problem = error
        if isinstance(error, OVER):
            self.close()
            self._on_over(error)
        else:  # every renewal would be refused like the report
            self.update.ClearField("progress")
            self.update.ClearField("message")
            self.update.ClearField("checkpoint")
        self._answered.set()

    def close(self) -> None:
        """Report nothing more, and let the lease run out."""
        self._is_closed = True
        self._taken.set()
        self._answered.set()
        self._outbox.drop(self)


def _lease_s(operation: Operation) -> float:
    """Return the length of the lease, by the clock of the service alone."""
    if operation.lease_expire_time is None or operation.start_time is None:
        return DEFAULT_LEASE_S
    return (operation.lease_expire_time - operation.start_time).total_seconds()
