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
    """The checks that all protocols of a replica share: one credential cache, one set of limits.

    A protocol makes every call pass these five, in this order:

    1. `Admission.admit`: a full or draining replica verifies no credentials.
    2. `Authenticator.authenticate`: returns the principal, which the rest needs.
    3. `policy.authorize`: the principal has a role of the method.
    4. `RateLimits.charge`: the rates of the principal; only permitted calls are counted.
    5. Audit: `audit.record_refusal` for every call that one of these or the use case refuses, and
       `telemetry.record_change` for every success of an audited method.

    A public method passes none of the first four.
    """

    admission: Admission
    authenticator: Authenticator
    rate_limits: RateLimits
