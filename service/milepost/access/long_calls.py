"""The calls that wait or stream, which end when their API keys are good no longer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from milepost.domain.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, KeysView


class LongCalls:
    """The running long calls, by the ids of their API keys."""

    def __init__(self) -> None:
        """Start with no call."""
        self._by_key: dict[str, set[asyncio.Timeout]] = {}

    @property
    def key_ids(self) -> KeysView[str]:
        """The keys that have calls."""
        return self._by_key.keys()

    @contextlib.asynccontextmanager
    async def of_key(self, key_id: str) -> AsyncIterator[None]:
        """Run a call of the key inside of an ``async with`` block.

        Raises:
            Unauthenticated: `end` was called for the key, which has cancelled the block.
        """
        calls = self._by_key.setdefault(key_id, set())
        limit = asyncio.timeout(None)
        calls.add(limit)
        try:
            async with limit:
                yield
        except TimeoutError:
            if limit.expired():
                raise Unauthenticated from None
            raise
        finally:
            calls.discard(limit)
            if not calls and self._by_key.get(key_id) is calls:
                del self._by_key[key_id]

    def end(self, key_id: str) -> None:
        """End every call of the key."""
        for limit in self._by_key.pop(key_id, ()):
            limit.reschedule(0)
