"""Pending work in a SQL database: claims of workers, and the search for pending operations."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from milepost.domain.ports import ignore
from milepost.storage import claims
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

    async def claim(
        self, claim: ClaimRequest, on_abandoned: Callable[[list[Operation]], None] = ignore
    ) -> list[Operation]:
        """See `WorkStore.claim`."""
        claims = self._batchers.claims
        return await claims.call(self._claims.claim, claim, object(), on_abandoned)

    async def pending(self, functions: Collection[str]) -> list[str]:
        """See `WorkStore.pending`."""
        remaining = iter(sorted(functions))
        parts = list(iter(lambda: list(itertools.islice(remaining, MAX_FUNCTIONS)), []))

        def with_work(session: Session) -> Iterator[str]:
            for part in parts:
                for row in session.fetch(claims.pending(part)):
                    yield row.function

        return await self._batchers.read(lambda session: list(with_work(session)))
