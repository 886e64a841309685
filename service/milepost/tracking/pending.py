"""What workers have reported and is not committed yet, so that the end of an operation finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from milepost.domain.operation import AccessFilter, OperationId


class Holder(Protocol):
    """Something that holds progress of one operation back for a moment."""

    owner: str
    function: str

    async def flush(self) -> None:
        """Return when it is committed, or was refused.

        Raises:
            StoreUnavailable, Overloaded: neither can be done now.
        """


class PendingProgress:
    """The progress that is held back on this replica, by operation."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._holders: dict[OperationId, set[Holder]] = {}

    def hold(self, operation_id: OperationId, holder: Holder) -> None:
        """Let `flush` know that progress of the operation is held back."""
        self._holders.setdefault(operation_id, set()).add(holder)

    def release(self, operation_id: OperationId, holder: Holder) -> None:
        """Forget it: it is on its way, or nobody wants it any more."""
        group = self._holders.get(operation_id)
        if group is not None:
            group.discard(holder)
            if not group:
                del self._holders[operation_id]

    async def flush(self, operation_id: OperationId, access_filter: AccessFilter) -> None:
        """Commit what is held back of an operation that lies inside the scope.

        For others nothing happens: how long this takes tells a stranger nothing.
        """
        for holder in tuple(self._holders.get(operation_id, ())):
            if access_filter.covers(owner=holder.owner, function=holder.function):
                await holder.flush()
