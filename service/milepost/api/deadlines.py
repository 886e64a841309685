"""For how long a call may wait: as long as it asks, within its deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from milepost.api.call import ApiCall

MARGIN_S: Final = 0.5
"""Part of the deadline that is reserved for the response to reach the caller."""
MARGIN_SHARE: Final = 0.2
"""Maximum share of a short deadline that is reserved."""


def bounded(seconds: float, call: ApiCall) -> float:
    """Return `seconds`, bounded by the deadline of the call less its margin."""
    left = call.seconds_left
    if left is None:
        return seconds
    return min(seconds, left - min(MARGIN_S, left * MARGIN_SHARE))
