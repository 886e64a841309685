"""Items of a progress stream that its worker has not read yet."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Final

from milepost.tracking.progress_messages import Acknowledgement

if TYPE_CHECKING:
    from milepost.tracking.progress_messages import Item

MAX_UNREAD_ITEMS: Final = 256
"""Number of unread items from which on a stream takes no more updates from its worker."""


class ProgressOutbox:
    """Unread items, the oldest first. Of one operation only the newest acknowledgement is kept."""

    def __init__(self) -> None:
        """Begin empty."""
        self._items: dict[object, Item] = {}
        self._numbers = itertools.count()
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def __len__(self) -> int:
        """Return the number of unread items."""
        return len(self._items)

    @property
    def is_full(self) -> bool:
        """Return whether the worker must read before more updates are taken from it."""
        return len(self._items) >= MAX_UNREAD_ITEMS

    async def wait_for_room(self) -> None:
        """Return when the outbox is not full."""
        await self._has_room.wait()

    def put(self, item: Item) -> None:
        """Append an item. An acknowledgement replaces the earlier one of its operation."""
        key = item.id if isinstance(item, Acknowledgement) else next(self._numbers)
        self._items.pop(key, None)
        self._items[key] = item
        if self.is_full:
            self._has_room.clear()
        self.wake()

    def take(self) -> Item:
        """Remove and return the oldest item; there must be one."""
        item = self._items.pop(next(iter(self._items)))
        if not self.is_full:
            self._has_room.set()
        return item

    def take_acknowledgements(self, max_items: int) -> list[Acknowledgement]:
        """Remove and return the oldest items up to the first of another kind."""
        taken: list[Acknowledgement] = []
        for item in itertools.islice(self._items.values(), max_items):
            if not isinstance(item, Acknowledgement):
                break
            taken.append(item)
        for item in taken:
            del self._items[item.id]
        if not self.is_full:
            self._has_room.set()
        return taken

    def wake(self) -> None:
        """End `wait`, with or without a new item."""
        self._changed.set()

    async def wait(self) -> None:
        """Return at the next `put` or `wake`."""
        self._changed.clear()
        await self._changed.wait()
