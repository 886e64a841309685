"""Claims: the request of one worker for pending operations, and work that falls due."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DueWork:
    """The waiting operations that became claimable, and the time until the next ones do."""

    functions: tuple[str, ...] = ()
    """Of each operation that became claimable."""
    next_due: timedelta | None = None
    """Zero or less if more operations are due now; None if no operation waits."""
