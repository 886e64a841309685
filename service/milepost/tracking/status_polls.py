"""Status polls of the operations on progress streams, many in one read."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Protocol

from milepost.domain.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from milepost.domain.interruption import StatusSnapshot
    from milepost.domain.operation import OperationId
    from milepost.domain.ports import OperationStore

MAX_POLLED: Final = 500
"""Operations in one read."""


class Polled(Protocol):
    """One operation on one stream."""

    @property
    def id(self) -> OperationId:
        """The operation."""

    def receive_status(self, status_snapshot: StatusSnapshot | None) -> None:
        """Take the status; None means that the operation is gone."""


class StatusPolls:
    """Requested polls, until they are answered."""

    def __init__(self, store: OperationStore) -> None:
        """Read from `store`."""
        self._store = store
        self._requested: set[Polled] = set()
        self._has_requests = asyncio.Event()

    def __len__(self) -> int:
        """Return the number of requested polls."""
        return len(self._requested)

    def request(self, operation: Polled) -> None:
        """Poll the operation soon, together with others."""
        self._requested.add(operation)
        self._has_requests.set()

    def request_later(self, operations: Iterable[Polled]) -> None:
        """Poll the operations in the next round."""
        self._requested.update(operations)

    def discard(self, operation: Polled) -> None:
        """Withdraw the request of an operation that has left its stream."""
        self._requested.discard(operation)

    async def wait(self, max_wait: float) -> None:
        """Return at the next request, or after `max_wait` seconds."""
        # Not `wait_for`: until Python 3.12 it swallows a cancellation together with a request.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max_wait):
                await self._has_requests.wait()
        self._has_requests.clear()

    async def read(self, operation_id: OperationId) -> StatusSnapshot | None:
        """Return the status of one operation, or None if it is gone or the store is away."""
        try:
            found = await self._store.status_snapshots([operation_id])
        except Unavailable:
            return None
        return found[0] if found else None

    async def run(self) -> None:
        """Read the status of all requested operations and hand it to them.

        Raises:
            StoreUnavailable, Overloaded: the requests of the failed read are lost.
        """
        while self._requested:
            batch = [self._requested.pop() for _ in range(min(MAX_POLLED, len(self._requested)))]
            found = await self._store.status_snapshots(list({operation.id for operation in batch}))
            by_id = {status_snapshot.id: status_snapshot for status_snapshot in found}
            for operation in batch:
                operation.receive_status(by_id.get(operation.id))
