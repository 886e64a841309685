"""Pages of lists: bounded in items and in bytes, so that every client can receive them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Item = TypeVar("Item")

ITEM_BYTES: Final = 1_800
"""Upper bound of the bytes that an item takes besides its texts and payloads. It includes the name
of a worker, which a claim sets."""
_CHARACTER_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Item]):
    """A page of a list."""

    items: list[Item]
    is_last: bool


def page_of(
    found: Sequence[Item], limit: int, *, max_bytes: int, size: Callable[[Item], int]
) -> Page[Item]:
    """Return a page with the first `limit` items, or as many as fit into `max_bytes`, at least one.

    Args:
        found: the items after the last page; one more than `limit` if there are so many.
        limit: the size of the page.
        max_bytes: the maximum of the sum of the sizes.
        size: returns an upper bound of the bytes of an item.
    """
    items: list[Item] = []
    left = max_bytes
    for item in found[:limit]:
        left -= size(item)
        if left < 0 and items:
            break
        items.append(item)
    return Page(items=items, is_last=len(items) == len(found))


def text_bytes(texts: Iterable[str | None]) -> int:
    """Return an upper bound of the bytes of texts."""
    return _CHARACTER_BYTES * sum(len(text) for text in texts if text)
