"""Claims: the request of one worker for pending operations, and the work that is due."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class DueWork:
    """The work of some functions: what is claimable now, and when there is more."""

    functions: tuple[str, ...]
    """Those of the functions that have claimable operations."""
    next_due: timedelta | None
    """The time until another operation falls due; None if no operation is delayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """One claim: the functions that a worker offers, and how many operations it takes."""

    functions: tuple[str, ...]
    """Exact names."""
    max_operations: int
    """At least 1."""
    max_bytes: int
    """Of the answer. The first operation may be larger."""
    lease: timedelta
    actor: str
    """The subject of the caller."""
    worker: str
