"""What this replica knows of the hosts it sends to: how busy they are, and whether they are down.

A host that failed many times in a row is left alone for a while. That only delays what is to be
sent there: nothing is dropped, and no attempt of a schedule is used up by waiting.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FAILURES_TO_OPEN: Final = 10
OPEN_S: Final = 60.0
MOST_REMEMBERED: Final = 1_000
"""Hosts that have failed lately. Of more, those that failed longest ago are forgotten."""


@dataclass(slots=True)
class _Failing:
    failures: int = 0
    open_until: float = 0.0


class Hosts:
    """The hosts of one replica."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        per_host: int,
        failures: int = FAILURES_TO_OPEN,
        open_s: float = OPEN_S,
    ) -> None:
        """Allow `per_host` attempts at once; leave a host alone after `failures` in a row.

        Args:
            clock: in seconds, never set back.
            per_host: attempts at once. One claimed beyond them is enough until they are done.
            failures: in a row.
            open_s: for how long; the first failure after it counts like all of them.
        """
        self._clock = clock
        self._per_host = per_host
        self._enough = per_host + 1
        self._failures = failures
        self._open_s = open_s
        self._claimed: dict[str, int] = {}
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._failing: OrderedDict[str, _Failing] = OrderedDict()

    def busy(self) -> set[str]:
        """Return the hosts for which nothing more is to be claimed now."""
        now = self._clock()
        full = {host for host, claimed in self._claimed.items() if claimed >= self._enough}
        return full | {host for host, state in self._failing.items() if state.open_until > now}

    def begin(self, host: str) -> None:
        """Note that something for a host is claimed."""
        self._claimed[host] = self._claimed.get(host, 0) + 1

    def turn(self, host: str) -> asyncio.Semaphore:
        """Return what is held while something is sent to a host, between `begin` and `end`."""
        if host not in self._turns:
            self._turns[host] = asyncio.Semaphore(self._per_host)
        return self._turns[host]

    def end(self, host: str, *, failed: bool) -> bool:
        """Note that an attempt has ended; tell whether the host is left alone from now on."""
        self._claimed[host] -= 1
        if not self._claimed[host]:
            del self._claimed[host]
            self._turns.pop(host, None)
        if not failed:
            self._failing.pop(host, None)
            return False
        state = self._failing.setdefault(host, _Failing())
        self._failing.move_to_end(host)
        while len(self._failing) > MOST_REMEMBERED:
            self._failing.popitem(last=False)
        state.failures += 1
        if state.failures < self._failures:
            return False
        opened = state.open_until <= self._clock()
        state.open_until = self._clock() + self._open_s
        return opened
