"""The days of events: partitions that are made ahead, and dropped as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDays:
    """Changes of the days of a store."""

    made: tuple[str, ...] = ()
    """The partitions of coming days."""
    dropped: tuple[str, ...] = ()
    """The partitions of days whose retention is over."""
    is_permitted: bool = True
    """False if the role of the service may not change tables."""

    def __add__(self, other: Self) -> EventDays:
        """Return the changes of both."""
        return EventDays(
            made=self.made + other.made,
            dropped=self.dropped + other.dropped,
            is_permitted=self.is_permitted and other.is_permitted,
        )
