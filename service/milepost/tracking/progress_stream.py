"""One progress stream of one worker: many operations, acknowledged when committed.

The memory of a stream is bounded, whatever its worker sends: it carries a limited number of
operations, each holds one pending update, and a worker that does not read its items is not read
either.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.domain.errors import Draining, StreamFull
from milepost.domain.transitions import Preconditions, Transition
from milepost.tracking.committer import transition_request
from milepost.tracking.progress_buffer import (
    INTERRUPTED_BY,
    Commit,
    CommitAt,
    Count,
    ProgressBuffer,
    Signal,
)
from milepost.tracking.progress_messages import UpdateError
from milepost.tracking.progress_outbox import ProgressOutbox
from milepost.tracking.streamed_operations import StreamedOperation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from milepost.domain.interruption import StatusSnapshot
    from milepost.domain.limits import Limits
    from milepost.domain.operation import OperationId, Principal
    from milepost.domain.transitions import TransitionRequest
    from milepost.tracking.committer import Committer
    from milepost.tracking.progress_buffer import Commands
    from milepost.tracking.progress_messages import Acknowledgement, Item, ProgressUpdate
    from milepost.tracking.status_polls import StatusPolls
    from milepost.tracking.streamed_operations import Clock, StreamedOperations

MAX_DRAIN_DELAY_S: Final = 2.0
"""Longest time that a worker which does not read its items delays a stopping replica."""
RECORD: Final[Mapping[Count, Callable[[int], None]]] = {
    Count.COALESCED: telemetry.update_coalesced,
    Count.COMMITTED: telemetry.update_committed,
    Count.REFUSED: telemetry.update_refused,
}
"""The metric of each count."""


class ProgressStream:
    """One stream of one worker: carries out the commands of its buffers."""

    def __init__(
        self,
        by: Principal,
        committer: Committer,
        *,
        all_operations: StreamedOperations,
        polls: StatusPolls,
        limits: Limits,
        clock: Clock,
    ) -> None:
        """Begin without operations.

        Args:
            by: the worker, who requests every commit.
            committer: commits the updates.
            all_operations: those of all streams of the replica.
            polls: read statuses.
            limits: bound the operations and the commits of the stream.
            clock: of the buffers.
        """
        self._by = by
        self._committer = committer
        self._all_operations = all_operations
        self._polls = polls
        self._limits = limits
        self._clock = clock
        self._operations: dict[OperationId, StreamedOperation] = {}
        self._outbox = ProgressOutbox()
        self._received = 0
        self._counts = Counter[Count]()
        self._is_finished = self._is_draining = False
        self.drain_timeout = asyncio.timeout(None)
        """Ends the stream of a worker that does not read while the replica stops."""

    # --- updates ---

    @property
    def is_full(self) -> bool:
        """Return whether the worker must read items before more updates are taken."""
        return self._outbox.is_full

    async def wait_for_room(self) -> None:
        """Return when more updates may be taken."""
        await self._outbox.wait_for_room()

    def offer(self, update: ProgressUpdate) -> None:
        """Take an update; it is committed at once or coalesced with those that follow.

        A finished stream ignores it: without an acknowledgement the worker sends it again.
        """
        self._received += 1
        if self._is_finished:
            return
        operation = self._operations.get(update.id)
        if operation is None:
            max_operations = self._limits.stream_operations
            if len(self._operations) >= max_operations:
                self.refuse(update.id, StreamFull(max_operations=max_operations))
                return
            operation = self._add(update.id)
        operation.update(update)

    def refuse(self, operation_id: str, error: Exception) -> None:
        """Answer an update with an error; the stream goes on."""
        self._counts[Count.REFUSED] += 1
        self._outbox.put(UpdateError(id=operation_id, error=error))

    def finish(self) -> None:
        """Take no more updates; commit and answer those that are pending, and end."""
        self._is_finished = True
        for operation in tuple(self._operations.values()):
            operation.finish()
        self._outbox.wake()

    def drain(self) -> None:
        """Finish, and send the worker to another replica."""
        self._is_draining = True
        self.finish()
        if self.drain_timeout.when() is None:
            now = asyncio.get_running_loop().time()
            self.drain_timeout.reschedule(now + MAX_DRAIN_DELAY_S)

    # --- items ---

    async def next(self) -> Item | None:
        """Return the next item for the worker, or None when the stream has ended.

        Raises:
            Draining: the stream has ended because the replica stops.
        """
        self.record_counts()
        while not self._outbox:
            if self._is_finished and not any(o.buffer.is_busy for o in self._operations.values()):
                if self._is_draining:
                    raise Draining
                return None
            await self._outbox.wait()
        return self._outbox.take()

    def next_acknowledgements(self, max_items: int) -> Sequence[Acknowledgement]:
        """Return the acknowledgements that are the next items for the worker, without a wait."""
        return self._outbox.take_acknowledgements(max_items)

    # --- operations ---

    def silent(self, since: float) -> Iterable[StreamedOperation]:
        """Return the operations without a commit and a poll since then."""
        return (
            operation
            for operation in self._operations.values()
            if operation.buffer.is_known and operation.buffer.seen_time <= since
        )

    def record_counts(self) -> None:
        """Add the counts since the last call to the metrics; each by itself would cost too much."""
        telemetry.update_received(self._received)
        self._received = 0
        counts, self._counts = self._counts, Counter()
        for count, number in counts.items():
            RECORD[count](number)

    def close(self) -> None:
        """Drop all operations, with their pending updates."""
        self.record_counts()
        for operation in tuple(self._operations.values()):
            self._drop(operation)

    def _add(self, operation_id: OperationId) -> StreamedOperation:
        interval = self._limits.stream_interval.total_seconds()
        operation = self._operations[operation_id] = StreamedOperation(
            ProgressBuffer(operation_id, interval=interval),
            execute=self._execute,
            clock=self._clock,
        )
        self._all_operations.add(operation)
        return operation

    def _drop(self, operation: StreamedOperation) -> None:
        operation.close()
        del self._operations[operation.id]
        self._all_operations.remove(operation)
        self._outbox.wake()

    # --- commands ---

    def _execute(self, operation: StreamedOperation, commands: Commands) -> None:
        for command in commands:
            match command:
                case Count():
                    self._counts[command] += 1
                case Signal.POLL:
                    self._polls.request(operation)
                case Signal.DROP:
                    self._drop(operation)
                case Commit(update):
                    operation.begin(self._commit(operation, update))
                case CommitAt(time):
                    operation.commit_at(time)
                case item:
                    self._outbox.put(item)

    async def _commit(
        self, operation: StreamedOperation, update: ProgressUpdate
    ) -> Exception | None:
        """Commit an update and pass the result to its buffer. Return the error, if any."""
        refusal = None
        try:
            result = await self._committer.commit(self._by, self._request(update))
        except Exception as error:  # noqa: BLE001 - one operation must not end the stream
            refusal = error
            status_snapshot = None
            if isinstance(error, INTERRUPTED_BY):
                status_snapshot = await self._status_after_refusal(update.id)
            now = self._clock.time()
            commands = operation.buffer.failed(update, error, status_snapshot, now)
        else:
            commands = operation.buffer.committed(result.operation, self._clock.time())
        operation.commit = None
        self._execute(operation, commands)
        return refusal

    async def _status_after_refusal(self, operation_id: OperationId) -> StatusSnapshot | None:
        """Return the status, or None if it is not known: the buffer must learn of the refusal."""
        try:
            return await self._polls.read(operation_id)
        except Exception as error:  # noqa: BLE001 - one operation must not end the stream
            telemetry.record_failure("progress streams", error, expected=False)
            return None

    def _request(self, update: ProgressUpdate) -> TransitionRequest:
        return transition_request(
            self._by,
            Transition.PROGRESS,
            update.id,
            Preconditions(attempt=update.attempt),
            progress=update.progress,
            message=update.message,
            checkpoint=update.checkpoint,
            worker=self._by.subject,
        )
