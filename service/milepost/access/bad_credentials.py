"""The limit of bad credentials from one address, beyond which no credential is verified.

The address is that of the connection, never one from a header. Behind a proxy it is the proxy's.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING, Final

from milepost.access.rate_limits import rate_limited
from milepost.access.token_buckets import LocalBuckets
from milepost.domain.rates import Rate

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FAILURES_PER_MINUTE: Final = 60
MAX_ADDRESSES: Final = 10_000
LIMIT: Final = "failed_authentications"
_IPV6_NETWORK: Final = 64
"""Bits of an IPv6 address that name a network; one customer has all addresses of a network."""


class BadCredentials:
    """Counts the failed authentications of each address, of a bounded number of addresses."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        """Allow `per_minute` from one address; 0 is no limit."""
        self._rate = Rate(count=per_minute) if per_minute else None
        self._buckets = LocalBuckets(max_buckets=MAX_ADDRESSES, clock=clock)

    def check(self, address: str) -> None:
        """Return if a credential from `address` may be verified.

        Raises:
            RateLimited: too many were bad; the error says when to come back.
        """
        if self._rate is None or not len(self._buckets):
            return
        wait = self._buckets.wait((network_of(address),), self._rate)
        if wait:
            raise rate_limited(LIMIT, self._rate, wait)

    async def count(self, address: str) -> None:
        """Count a bad credential from `address`."""
        if self._rate is not None:
            await self._buckets.take((network_of(address),), self._rate)


@functools.lru_cache(maxsize=1_024)
def network_of(address: str) -> str:
    """Return an IPv4 address as it is, and the /64 network of an IPv6 address.

    Any other text is returned as it is: the name of a kind of connection without addresses.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, _IPV6_NETWORK), strict=False))
