"""Pending work in a SQL database: claims of workers, and the search for pending operations."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from milepost.domain.claim import DueWork
from milepost.domain.ports import ignore
from milepost.storage import claims
from milepost.storage.batchers import alone
from milepost.storage.claims import Claims

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from milepost.domain.claim import ClaimRequest
    from milepost.domain.operation import Operation
    from milepost.storage.batchers import Batchers
    from milepost.storage.session import Session

MAX_FUNCTIONS: Final = 100
"""Functions in one query for pending work."""


class SqlWorkStore:
    """Implementation of the port `WorkStore`."""

    def __init__(self, batchers: Batchers) -> None:
        """Compile every statement once."""
        self._batchers = batchers
        self._claims = Claims(batchers.database)
        self._wake = claims.wake_statement(batchers.database)

    async def claim(
        self, claim: ClaimRequest, on_abandoned: Callable[[list[Operation]], None] = ignore
    ) -> list[Operation]:
        """See `WorkStore.claim`."""
        batcher = self._batchers.claims
        return await batcher.call(self._claims.claim, claim, object(), on_abandoned)

    async def pending(self, functions: Collection[str]) -> list[str]:
        """See `WorkStore.pending`."""
        remaining = iter(sorted(functions))
        parts = list(iter(lambda: list(itertools.islice(remaining, MAX_FUNCTIONS)), []))

        def with_work(session: Session) -> Iterator[str]:
            for part in parts:
                for row in session.fetch(claims.pending(part)):
                    yield row.function

        return await self._batchers.read(lambda session: list(with_work(session)))

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
        rows = await self._batchers.read(lambda session: session.fetch(claims.next_due()))
        return rows[0][0] if rows else None
