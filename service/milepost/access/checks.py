"""The checks that every call passes, whatever its protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from milepost.access.admission import Admission
    from milepost.access.authenticator import Authenticator
    from milepost.access.rate_limits import RateLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessChecks:
    """The checks that all protocols of a replica share: one credential cache, one set of limits."""

    admission: Admission
    authenticator: Authenticator
    rate_limits: RateLimits
