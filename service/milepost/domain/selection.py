"""Parameters of a list: the filters and the position to go on from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from datetime import datetime

    from milepost.domain.operation import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Filters of a list of operations. An empty or absent one is no condition."""

    collection: ClassVar = "operations"
    """Names the list in page tokens: never changes."""

    statuses: tuple[Status, ...] = ()
    function: str | None = None
    owner: str | None = None
    create_time_from: datetime | None = None
    """Inclusive."""
    create_time_to: datetime | None = None
    """Exclusive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place between two items of a list, newest first."""

    create_time: datetime
    id: str
