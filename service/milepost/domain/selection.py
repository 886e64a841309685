"""Parameters of a list: which operations, and from which position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from milepost.domain.operation import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which operations to list. Empty or absent means: no condition."""

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
