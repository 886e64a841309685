"""The history of operations: the events of one operation, for its owner and for admins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost import telemetry
from milepost.domain.history import EventSelection
from milepost.domain.relations import LISTERS, access_filter
from milepost.domain.selection import Position

if TYPE_CHECKING:
    from milepost.domain.history import Event
    from milepost.domain.limits import Limits
    from milepost.domain.operation import OperationId, Principal
    from milepost.domain.ports import HistoryStore, OperationStore
    from milepost.tracking.page_tokens import PageTokens


class History:
    """Lists events. Raises the errors of `OperationStore` too."""

    def __init__(
        self,
        operations: OperationStore,
        history: HistoryStore,
        *,
        limits: Limits,
        page_tokens: PageTokens,
    ) -> None:
        """List the events of `history` to those who may read the operation in `operations`."""
        self._operations = operations
        self._history = history
        self._limits = limits
        self._page_tokens = page_tokens

    async def events(
        self, by: Principal, operation_id: OperationId, *, page_size: int = 0, page_token: str = ""
    ) -> tuple[list[Event], str]:
        """Return one page of events, oldest first, and the token of the next page.

        The token is empty on the last page. A page has fewer events than asked for if its answer
        would exceed the limit of its size.
        """
        operation = await self._operations.get(operation_id, access_filter(by, LISTERS))
        telemetry.join_trace(operation.id, operation.trace_context)
        selection = EventSelection(operation_id=operation_id)
        after = 0
        if page_token:
            position = self._page_tokens.read(page_token, subject=by.subject, selection=selection)
            after = int(position.id)
        limit = page_size or self._limits.page_size_default
        page = await self._history.events(
            operation_id, after=after, limit=limit, max_bytes=self._limits.answer_bytes
        )
        if page.is_last:
            return page.items, ""
        last = page.items[-1]
        position = Position(create_time=last.time, id=str(last.revision))
        token = self._page_tokens.issue(position, subject=by.subject, selection=selection)
        return page.items, token
