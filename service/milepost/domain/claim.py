"""A request of one worker for pending work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """What one worker asks to be given."""

    functions: tuple[str, ...]
    """Exact names."""
    most: int
    """Operations, at least 1."""
    lease: timedelta
    actor: str
    """The subject that asks."""
    worker: str
