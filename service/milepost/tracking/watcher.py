"""Waits and watches: until an operation changes, until it ends, and from change to change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

from milepost import telemetry
from milepost.domain.errors import Draining, RevisionAhead
from milepost.domain.history import is_terminal, may_have_missed, operation_after
from milepost.domain.relations import READERS, access_filter
from milepost.tracking.subscriptions import Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from milepost.domain.operation import AccessFilter, Operation, OperationId, Principal
    from milepost.domain.ports import HistoryStore, OperationStore
    from milepost.tracking.subscriptions import Subscriptions

MAX_STATUS_CHANGES: Final = 100
"""Status changes in one read; there are rarely more than three."""


class Watcher:
    """Lets callers wait for operations and watch them.

    Every method raises the errors of `OperationStore.get` too.
    """

    def __init__(
        self,
        store: OperationStore,
        history: HistoryStore,
        subscriptions: Subscriptions,
        *,
        max_wait: float,
        keep_alive: float,
    ) -> None:
        """Read `store` and `history` after every notification.

        Args:
            store: holds the operations.
            history: holds their status changes.
            subscriptions: notify of changes.
            max_wait: the longest wait, in seconds.
            keep_alive: seconds without a change after which a watch yields None.
        """
        self.store = store
        self.history = history
        self.subscriptions = subscriptions
        self.max_wait = max_wait
        self.keep_alive = keep_alive
        self.is_closed = False

    def close(self) -> None:
        """Answer every wait now, and end every watch with `Draining`."""
        self.is_closed = True
        self.subscriptions.notify_all()

    async def wait(self, by: Principal, operation_id: OperationId, seconds: float) -> Operation:
        """Return the operation when it is terminal, or at the latest after `seconds`."""
        return await self._until(
            by, operation_id, seconds, lambda operation, _: is_terminal(operation)
        )

    async def wait_for_change(
        self, by: Principal, operation_id: OperationId, seconds: float
    ) -> Operation:
        """Return the operation when it changes, or at the latest after `seconds`.

        A terminal operation is returned at once, because it does not change any more.
        """
        return await self._until(
            by,
            operation_id,
            seconds,
            lambda operation, first: is_terminal(operation) or operation.revision != first,
        )

    def watch(self, by: Principal, operation_id: OperationId, after_revision: int) -> Watch:
        """Watch the changes after `after_revision`; 0 begins with the operation as it is now."""
        return Watch(self, operation_id, access_filter(by, READERS), after_revision)

    async def _until(
        self,
        by: Principal,
        operation_id: OperationId,
        seconds: float,
        is_enough: Callable[[Operation, int], bool],
    ) -> Operation:
        clock = asyncio.get_running_loop().time
        end = clock() + min(seconds, self.max_wait)
        with self.subscriptions.subscribed(operation_id) as subscriber:
            first = None
            while True:
                operation = await self.store.get(operation_id, access_filter(by, READERS))
                subscriber.seen_revision = operation.revision
                if first is None:
                    telemetry.join_trace(operation_id, operation.trace_context)
                    first = operation.revision
                left = end - clock()
                if is_enough(operation, first) or left <= 0 or self.is_closed:
                    return operation
                del operation  # an idle wait holds no operation in memory
                await subscriber.wait(left)


class Watch:
    """The changes of one operation, in the order of revisions. Use it in a ``with`` block.

    An idle watch holds no operation in memory, because there may be ten thousand of them.
    """

    __slots__ = (
        "_access_filter",
        "_attempt",
        "_id",
        "_is_ended",
        "_ready",
        "_revision",
        "_subscriber",
        "_watcher",
    )

    def __init__(
        self,
        watcher: Watcher,
        operation_id: OperationId,
        access_filter: AccessFilter,
        after_revision: int,
    ) -> None:
        """Continue after `after_revision`."""
        self._watcher = watcher
        self._id = operation_id
        self._access_filter = access_filter
        self._revision = after_revision
        self._attempt: int | None = None
        self._ready: list[Operation] = []
        self._is_ended = False

    def __enter__(self) -> Self:
        """Subscribe to the operation."""
        self._subscriber = Subscriber()
        self._watcher.subscriptions.subscribe(self._id, self._subscriber)
        self._subscriber.notify()  # read the operation at once
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unsubscribe."""
        self._watcher.subscriptions.unsubscribe(self._id, self._subscriber)

    def __aiter__(self) -> Self:
        """Iterate over the changes."""
        return self

    async def __anext__(self) -> Operation | None:
        """Return the operation after its next change, or None after `keep_alive` seconds.

        Every status change is returned once, in the order of revisions; of progress only the
        newest. The iteration ends after the terminal change.

        Raises:
            Draining: this replica stops; another one continues after the last revision.
            RevisionAhead: the operation has not reached the last revision, or has no longer.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + self._watcher.keep_alive
        while not self._ready:
            if self._is_ended:
                raise StopAsyncIteration
            if self._watcher.is_closed:
                raise Draining
            left = end - clock()
            if left <= 0:
                return None
            if await self._subscriber.wait(left) and not self._watcher.is_closed:
                await self._read()
        return self._ready.pop(0)

    async def _read(self) -> None:
        """Read the operation, and make the changes since the last read ready."""
        operation = await self._watcher.store.get(self._id, self._access_filter)
        if self._subscriber.seen_revision is None:
            telemetry.join_trace(self._id, operation.trace_context)
        self._subscriber.seen_revision = operation.revision
        if operation.revision < self._revision:
            raise RevisionAhead(requested=self._revision, actual=operation.revision)
        self._is_ended = is_terminal(operation)
        if operation.revision == self._revision:
            return
        if self._revision and may_have_missed(
            operation, revision=self._revision, attempt=self._attempt
        ):
            await self._read_missed(operation)
            if len(self._ready) == MAX_STATUS_CHANGES:
                return
        self._ready.append(operation)
        self._revision, self._attempt = operation.revision, operation.attempt

    async def _read_missed(self, operation: Operation) -> None:
        """Make the status changes before the operation ready, the oldest `MAX_STATUS_CHANGES`."""
        status_changes = await self._watcher.history.status_changes(
            self._id, after=self._revision, before=operation.revision, limit=MAX_STATUS_CHANGES
        )
        self._ready = [operation_after(operation, change) for change in status_changes]
        if len(status_changes) == MAX_STATUS_CHANGES:  # read the rest and the operation later
            last = status_changes[-1]
            self._revision, self._attempt = last.revision, last.attempt
            self._is_ended = False
            self._subscriber.notify()
