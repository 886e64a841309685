"""Concurrency limits: how many webhooks are sent at once, in total and to each host."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

_LEASE_MARGIN: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLimits:
    """The limits of one replica."""

    total: int = 64
    per_host: int = 8
    timeout: timedelta = timedelta(seconds=5)
    """Timeout of one attempt."""

    @property
    def max_claimed(self) -> int:
        """Number of deliveries that are claimed at once: those in flight and as many queued."""
        return 2 * self.total

    @property
    def max_wait(self) -> timedelta:
        """Time that a claimed delivery may wait in the queue: as long as a running attempt."""
        return self.timeout + _LEASE_MARGIN

    def lease(self, settle_time: timedelta) -> timedelta:
        """Return the length of a lease: a wait, an attempt, and the retries of its settlement."""
        return self.max_wait + self.timeout + settle_time


class HostConcurrency:
    """Counts the claimed deliveries of each host, and limits those in flight."""

    def __init__(self, per_host: int) -> None:
        """Allow `per_host` attempts at once. One more delivery is claimed, to be sent next."""
        self._per_host = per_host
        self._max_claimed = per_host + 1
        self._claimed: dict[str, int] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}

    def full_hosts(self) -> set[str]:
        """Return the hosts for which no further delivery should be claimed."""
        return {host for host, claimed in self._claimed.items() if claimed >= self._max_claimed}

    def add(self, host: str) -> None:
        """Count a claimed delivery."""
        self._claimed[host] = self._claimed.get(host, 0) + 1

    def slot(self, host: str) -> asyncio.Semaphore:
        """Return the semaphore that an attempt holds, between `add` and `remove`."""
        if host not in self._slots:
            self._slots[host] = asyncio.Semaphore(self._per_host)
        return self._slots[host]

    def remove(self, host: str) -> None:
        """Stop counting a delivery after its attempt."""
        self._claimed[host] -= 1
        if not self._claimed[host]:
            del self._claimed[host]
            self._slots.pop(host, None)
