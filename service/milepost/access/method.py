"""The description of a method of a protocol: what access must know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from milepost.domain.rates import RateLimitClass

if TYPE_CHECKING:
    from milepost.access.policy import UseCase


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method of a protocol. With the defaults alone it is refused to every principal."""

    name: str
    """As the protocol, the metrics and the audit log call it."""
    use_case: UseCase | None = None
    """Decides which principals may call it; with None, no principal may."""
    rate_limit: RateLimitClass = RateLimitClass.CHANGES
    long_running: bool = False
    """True if a call may wait for something to happen, instead of just running."""
    audited: bool = False
    """True if every success is a line of the audit log: the method changes, or gives away,
    something else than an operation. Transitions of operations have lines of their own."""
    limits_are_temporary: bool = False
    """True if a limit that is reached is to be reported as unavailability: the clients of the
    method repeat nothing else, and give their operation up at any other code."""
    is_public: bool = False
    """True if it answers without a credential, also while the service drains or is overloaded."""
