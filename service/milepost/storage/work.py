"""Pending work in a SQL database: claims of workers, and the search for due work."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from milepost.domain.claim import DueWork
from milepost.domain.ports import ignore
from milepost.storage import claims
from milepost.storage.claims import Claims

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from milepost.domain.claim import ClaimRequest
    from milepost.domain.operation import Operation
    from milepost.storage.batchers import Batchers
    from milepost.storage.session import AnyRow, Session

MAX_FUNCTIONS: Final = 100
"""Functions in one query for due work."""


class SqlWorkStore:
    """Implementation of the port `WorkStore`."""

    def __init__(self, batchers: Batchers) -> None:
        """Compile every statement once."""
        self._batchers = batchers
        self._claims = Claims(batchers.database)

    async def claim(
        self, claim: ClaimRequest, on_abandoned: Callable[[list[Operation]], None] = ignore
    ) -> list[Operation]:
        """See `WorkStore.claim`."""
        claims = self._batchers.claims
        return await claims.call(self._claims.claim, claim, object(), on_abandoned)

    async def due(self, functions: Collection[str]) -> DueWork:
        """See `WorkStore.due`."""
        remaining = iter(sorted(functions))
        parts = list(iter(lambda: list(itertools.islice(remaining, MAX_FUNCTIONS)), []))

        def rows(session: Session) -> list[AnyRow]:
            return [row for part in parts for row in session.fetch(claims.due(part))]

        found = await self._batchers.read(rows)
        return DueWork(
            functions=tuple(row.function for row in found if row.is_due),
            next_due=min((row.next_due for row in found if row.next_due is not None), default=None),
        )
