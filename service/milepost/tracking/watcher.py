"""Waiting for operations: until they change, until they end, and from change to change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

from milepost.domain.errors import Draining
from milepost.domain.history import as_it_stood, has_ended, has_passed_unseen
from milepost.domain.relations import READERS, access_filter
from milepost.tracking.subscriptions import Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from milepost.domain.operation import AccessFilter, Operation, OperationId, Principal
    from milepost.domain.ports import HistoryStore, OperationStore
    from milepost.tracking.subscriptions import Subscriptions

PAGE: Final = 100
"""Changes of status that a watcher reads at once; there are rarely more than three."""


class Watcher:
    """Lets callers wait. Every method raises the errors of `OperationStore.get` too."""

    def __init__(
        self,
        store: OperationStore,
        history: HistoryStore,
        subscriptions: Subscriptions,
        *,
        longest: float,
        keep_alive: float,
    ) -> None:
        """Read `store` and `history` when `subscriptions` says so.

        Args:
            store: where operations live.
            history: what has become of them.
            subscriptions: who is woken by what.
            longest: how long one wait may take, in seconds.
            keep_alive: after how many quiet seconds a watch says that it lives.
        """
        self.store = store
        self.history = history
        self.subscriptions = subscriptions
        self.longest = longest
        self.keep_alive = keep_alive
        self.is_closed = False

    def close(self) -> None:
        """Let everybody go: who waits is answered now, who watches is sent to another replica."""
        self.is_closed = True
        self.subscriptions.publish_all()

    async def wait(self, by: Principal, operation_id: OperationId, seconds: float) -> Operation:
        """Return the operation when it has ended, or as it stands after `seconds`, or earlier."""
        return await self._until(
            by, operation_id, seconds, lambda operation, _: has_ended(operation)
        )

    async def hold(self, by: Principal, operation_id: OperationId, seconds: float) -> Operation:
        """Return the operation when it changes, or as it stands after `seconds`, or earlier.

        One that has ended is returned at once: there is no change to be waited for.
        """
        return await self._until(
            by,
            operation_id,
            seconds,
            lambda operation, first: has_ended(operation) or operation.revision != first,
        )

    def watch(self, by: Principal, operation_id: OperationId, after_revision: int) -> Watch:
        """Return the changes after `after_revision`; 0 begins with the operation as it stands."""
        return Watch(self, operation_id, access_filter(by, READERS), after_revision)

    async def _until(
        self,
        by: Principal,
        operation_id: OperationId,
        seconds: float,
        is_enough: Callable[[Operation, int], bool],
    ) -> Operation:
        clock = asyncio.get_running_loop().time
        end = clock() + min(seconds, self.longest)
        with self.subscriptions.listen(operation_id) as subscriber:
            first = None
            while True:
                operation = await self.store.get(operation_id, access_filter(by, READERS))
                subscriber.seen = operation.revision
                first = first or operation.revision
                left = end - clock()
                if is_enough(operation, first) or left <= 0 or self.is_closed:
                    return operation
                del operation  # while nothing happens nothing of it is kept
                await subscriber.wait(left)


class Watch:
    """The changes of one operation, one after the other. To be used in a ``with`` block.

    While nothing happens it holds no operation: ten thousand may be idle.
    """

    __slots__ = (
        "_attempt",
        "_ended",
        "_id",
        "_listener",
        "_ready",
        "_revision",
        "_scope",
        "_watching",
    )

    def __init__(
        self,
        watcher: Watcher,
        operation_id: OperationId,
        access_filter: AccessFilter,
        after_revision: int,
    ) -> None:
        """Go on after `after_revision`."""
        self._watching = watcher
        self._id = operation_id
        self._scope = access_filter
        self._revision = after_revision
        self._attempt: int | None = None
        self._ready: list[Operation] = []
        self._ended = False

    def __enter__(self) -> Self:
        """Listen from now on."""
        self._listener = Subscriber()
        self._watching.subscriptions.join(self._id, self._listener)
        self._listener.wake()  # the first look is due
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Listen no more."""
        self._watching.subscriptions.leave(self._id, self._listener)

    def __aiter__(self) -> Self:
        """Iterate over the changes."""
        return self

    async def __anext__(self) -> Operation | None:
        """Return the operation after its next change, or nothing if all is quiet.

        Every change of status is returned once, in the order of revisions, and of the progress in
        between only the newest. Ends after the terminal one.

        Raises:
            Draining: this replica stops; another one goes on from the last revision.
        """
        clock = asyncio.get_running_loop().time
        quiet = clock() + self._watching.keep_alive
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            if self._watching.is_closed:
                raise Draining
            left = quiet - clock()
            if left <= 0:
                return None
            if await self._listener.wait(left) and not self._watching.is_closed:
                await self._look()
        return self._ready.pop(0)

    async def _look(self) -> None:
        """Make ready what has happened since the last look."""
        operation = await self._watching.store.get(self._id, self._scope)
        self._listener.seen = operation.revision
        self._ended = has_ended(operation)
        if operation.revision <= self._revision:
            return
        if self._revision and has_passed_unseen(
            operation, revision=self._revision, attempt=self._attempt
        ):
            status_changes = await self._watching.history.status_changes(
                self._id, after=self._revision, before=operation.revision, limit=PAGE
            )
            self._ready = [as_it_stood(operation, passage) for passage in status_changes]
            if (
                len(status_changes) == PAGE
            ):  # the rest, and the operation itself, come with the next look
                self._revision, self._attempt = (
                    status_changes[-1].revision,
                    status_changes[-1].attempt,
                )
                self._ended = False
                self._listener.wake()
                return
        self._ready.append(operation)
        self._revision, self._attempt = operation.revision, operation.attempt
