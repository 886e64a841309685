"""Pending work in a SQL database: claims of workers, and the search for pending operations."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from milepost.domain.claim import DueWork
from milepost.domain.ports import ignore
from milepost.storage.batchers import alone
from milepost.storage.claims import Claims
from milepost.storage.dialects import Span, pairs_json
from milepost.storage.pending_work import (
    next_due_statement,
    pending_statement,
    wake_statement,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from milepost.domain.claim import ClaimRequest
    from milepost.domain.operation import Operation
    from milepost.storage.batchers import Batchers


class SqlWorkStore:
    """Implementation of the port `WorkStore`."""

    def __init__(self, batchers: Batchers) -> None:
        """Compile every statement once."""
        database = batchers.database
        self._batchers = batchers
        self._claims = Claims(database)
        self._pending = pending_statement(database)
        self._wake = wake_statement(database)
        self._next_due_statement = next_due_statement(database)
        self._span = database.from_driver(Span())

    async def claim(
        self, claim: ClaimRequest, on_abandoned: Callable[[list[Operation]], None] = ignore
    ) -> list[Operation]:
        """See `WorkStore.claim`."""
        batcher = self._batchers.claims
        return await batcher.call(self._claims.claim, claim, object(), on_abandoned)

    async def pending(self, functions: Collection[str]) -> list[str]:
        """See `WorkStore.pending`."""
        inputs = [(pairs_json((function, "") for function in sorted(functions)),)]
        rows = await self._batchers.read(lambda session: session.read(self._pending, inputs))
        return [function for (function,) in rows]

    async def wake_due(self, max_operations: int) -> DueWork:
        """See `WorkStore.wake_due`."""
        next_due = await self._next_due()
        if next_due is None or next_due > timedelta():
            return DueWork(next_due=next_due)
        wake = alone(lambda session: session.run(self._wake, [(max_operations,)]))
        rows = await self._batchers.claims.submit(wake, None, object())
        functions = tuple(function for (function,) in rows)
        return DueWork(functions=functions, next_due=await self._next_due())

    async def _next_due(self) -> timedelta | None:
        next_due = self._next_due_statement
        rows = await self._batchers.read(lambda session: session.read(next_due, [()]))
        if not rows:
            return None
        left: timedelta = self._span(rows[0][0]) if self._span else rows[0][0]
        return left
