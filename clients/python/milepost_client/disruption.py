"""The difference between a refusal of the service and a call that was broken on its way.

Every refusal of the service has a reason. An error without one comes from something between: the
connection, a proxy, or gRPC itself. It says nothing about the request, so what may be sent twice is
sent again.
"""

from typing import Final

import grpc

from milepost_client.errors import MilepostError

BROKEN: Final = frozenset(
    {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED}
)
"""Codes of a broken call beside UNAVAILABLE: nginx resets the streams of a lost replica (INTERNAL),
other proxies and error pages are UNKNOWN, and a service that stops may cancel."""
_LATE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_ONCE_WORKED: Final = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED})
"""Codes of a proxy that is full, or that has no route at the moment. At the first try they rather
mean that the address is wrong."""


def is_refusal(error: MilepostError) -> bool:
    """Return True if the service itself has refused."""
    return bool(error.reason)


def is_disruption(error: MilepostError, *, has_worked: bool = False) -> bool:
    """Return True if a call was broken on its way.

    Args:
        error: The error of the call.
        has_worked: The service has answered to the same stream before.
    """
    codes = BROKEN | _LATE | _ONCE_WORKED if has_worked else BROKEN | _LATE
    return not is_refusal(error) and error.code in codes
