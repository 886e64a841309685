"""For how long a call may wait: as long as it asks, within its deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from milepost.rpc.prefer_header import HEADER, preferred_wait

if TYPE_CHECKING:
    from milepost.rpc.call import RpcCall

MARGIN_S: Final = 0.5
"""Part of the deadline that is reserved for the response to reach the caller."""
MARGIN_SHARE: Final = 0.2
"""Maximum share of a short deadline that is reserved."""


def bounded(seconds: float, call: RpcCall) -> float:
    """Return `seconds`, bounded by the deadline of the call less its margin."""
    left: float | None = call.context.time_remaining()
    if left is None:
        return seconds
    return min(seconds, left - min(MARGIN_S, left * MARGIN_SHARE))


def wait_preferred_by(call: RpcCall) -> float:
    """Return the seconds for which a read may hold its response; 0 without the preference."""
    if HEADER not in call.metadata:  # it is rare, and to read all metadata again costs much
        return 0
    return bounded(preferred_wait(call.context.invocation_metadata() or ()), call)
