"""Concurrency limits: how many webhooks are sent at once, in total and to each receiver.

One owner leaves a slot of each host to the other owners, and receivers on trial share a part of
all slots. So neither a slow receiver nor many that hang hold up the others.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

_LEASE_MARGIN: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLimits:
    """The limits of one replica."""

    total: int = 512
    per_host: int = 8
    timeout: timedelta = timedelta(seconds=5)
    """Timeout of one attempt."""

    @property
    def per_destination(self) -> int:
        """Concurrent attempts for one owner at one host."""
        return max(1, self.per_host - 1)

    @property
    def on_trial(self) -> int:
        """Concurrent attempts for all receivers that failed last."""
        return max(1, self.total // 4)

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


class ReceiverConcurrency:
    """Counts the claimed deliveries of each host or destination, and limits those in flight."""

    def __init__(self, max_running: int, max_claimed: int) -> None:
        """Allow `max_running` attempts at once, and no further claim from `max_claimed` on."""
        self._max_running = max_running
        self._max_claimed = max_claimed
        self._claimed: dict[str, int] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}

    def full(self) -> set[str]:
        """Return the receivers for which no further delivery should be claimed."""
        return {key for key, claimed in self._claimed.items() if claimed >= self._max_claimed}

    def claimed(self) -> set[str]:
        """Return the receivers that have a claimed delivery."""
        return set(self._claimed)

    def add(self, key: str) -> None:
        """Count a claimed delivery."""
        self._claimed[key] = self._claimed.get(key, 0) + 1

    def slot(self, key: str) -> asyncio.Semaphore:
        """Return the semaphore that an attempt holds, between `add` and `remove`."""
        if key not in self._slots:
            self._slots[key] = asyncio.Semaphore(self._max_running)
        return self._slots[key]

    def remove(self, key: str) -> None:
        """Stop counting a delivery after its attempt."""
        self._claimed[key] -= 1
        if not self._claimed[key]:
            del self._claimed[key]
            self._slots.pop(key, None)
