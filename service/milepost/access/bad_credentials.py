"""The limit of bad credentials from one address, beyond which no credential is verified.

The address is that of the connection, never one from a header. Behind a proxy it is the proxy's.

Each verification reserves one of the failures that its address has left, before it begins, so that
concurrent ones never fail more often than the limit allows. Where all failures that are left are
reserved, the next verification waits for one of them: if the credential turns out to be good, its
reservation is free again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
from collections import deque
from typing import TYPE_CHECKING, Final

from milepost.access.rate_limits import rate_limited
from milepost.access.token_buckets import LocalBuckets
from milepost.domain.errors import Unauthenticated
from milepost.domain.rates import Rate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MAX_FAILURES_PER_MINUTE: Final = 60
MAX_ADDRESSES: Final = 10_000
LIMIT: Final = "failed_authentications"
_IPV6_NETWORK: Final = 64
"""Bits of an IPv6 address that name a network; one customer has all addresses of a network."""


class _Verifications:
    """The running verifications of one network, and those that wait for one of them."""

    __slots__ = ("calls", "running", "waiting")

    def __init__(self) -> None:
        self.calls = 0
        """Calls that hold this object: those that run, wait, or are about to."""
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def wake_one(self) -> None:
        """Let the next one that waits look again."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def wait(self) -> None:
        """Return when another verification has ended."""
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        await turn


class BadCredentials:
    """Counts the failed authentications of each address, of a bounded number of addresses."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        """Allow `per_minute` from one address; 0 is no limit."""
        self._rate = Rate(count=per_minute) if per_minute else None
        self._buckets = LocalBuckets(max_buckets=MAX_ADDRESSES, clock=clock)
        self._verifications: dict[str, _Verifications] = {}

    @contextlib.asynccontextmanager
    async def verifying(self, address: str, *, limited: bool = True) -> AsyncIterator[None]:
        """Verify one credential from `address` inside; `Unauthenticated` there is a failure.

        Args:
            address: the address of the connection.
            limited: false for a credential that was good before, which is always verified.

        Raises:
            RateLimited: too many were bad; the error says when to come back.
        """
        network = network_of(address)
        if self._rate is None:
            yield
            return
        async with self._reserved(network, self._rate) if limited else contextlib.nullcontext():
            try:
                yield
            except Unauthenticated:
                await self._buckets.take((network,), self._rate)
                raise

    @contextlib.asynccontextmanager
    async def _reserved(self, network: str, rate: Rate) -> AsyncIterator[None]:
        """Reserve one of the failures that the network has left."""
        verifications = self._verifications.setdefault(network, _Verifications())
        verifications.calls += 1
        try:
            while verifications.running >= (left := self._buckets.count((network,), rate)):
                if not left:
                    raise rate_limited(LIMIT, rate, self._buckets.wait((network,), rate))
                await verifications.wait()
            verifications.running += 1
            try:
                yield
            finally:
                verifications.running -= 1
        finally:
            verifications.calls -= 1
            # Also by a call that was refused or cancelled: it may have been the one that was woken.
            verifications.wake_one()
            if not verifications.calls:
                del self._verifications[network]


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
