"""How many bad credentials one address may try before nobody looks at them any more.

The address is that of the connection, never what a header says. Behind a proxy it is the proxy's.
"""

from __future__ import annotations

import functools
import ipaddress
import math
import urllib.parse
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from milepost.domain.errors import RateLimited
from milepost.domain.rates import Rate
from milepost.tracking.buckets import LocalBuckets

if TYPE_CHECKING:
    from collections.abc import Callable

FAILURES_PER_MINUTE: Final = 60
MOST_ADDRESSES: Final = 10_000
LIMIT: Final = "failed_authentications"
_IPV6_NETWORK: Final = 64
"""Bits of an IPv6 address that name a network: whoever has one has all addresses in it."""


class Failures:
    """The failed authentications of each address, a bounded number of addresses."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        """Allow so many a minute from one address; 0 is no limit."""
        self._rate = Rate(count=per_minute) if per_minute else None
        self._buckets = LocalBuckets(most=MOST_ADDRESSES, clock=clock)

    def check(self, peer: str) -> None:
        """Return if a credential of this peer may be looked at.

        Raises:
            RateLimited: too many were bad; it tells when to come back.
        """
        if self._rate is None or not len(self._buckets):
            return
        wait = self._buckets.wait((address_of(peer),), self._rate)
        if wait:
            raise limited(LIMIT, self._rate, wait)

    async def count(self, peer: str) -> None:
        """Note that a credential of this peer was bad."""
        if self._rate is not None:
            await self._buckets.take((address_of(peer),), self._rate)


@functools.lru_cache(maxsize=1_024)
def address_of(peer: str) -> str:
    """Return the address in gRPC's name of a peer, without its port; the /64 of an IPv6 one."""
    kind, _, rest = peer.partition(":")
    host = urllib.parse.unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return kind  # a socket of this machine
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, _IPV6_NETWORK), strict=False))


def limited(limit: str, rate: Rate, wait: float) -> RateLimited:
    """Return the refusal that says when there will be room: never too early."""
    return RateLimited(
        limit=limit,
        count=rate.count,
        period=rate.period,
        retry_after=timedelta(milliseconds=math.ceil(wait * 1_000)),
    )
