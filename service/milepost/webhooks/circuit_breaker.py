"""The circuit breaker: a pause for hosts whose deliveries fail again and again.

A pause delays deliveries only: none is dropped, and none uses up an attempt of its schedule.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FAILURE_THRESHOLD: Final = 10
OPEN_S: Final = 60.0
MAX_FAILING_HOSTS: Final = 1_000
"""Bound of the remembered hosts. The host whose last failure is oldest is dropped first."""


@dataclass(slots=True)
class _FailingHost:
    failures: int = 0
    open_until: float = 0.0


class CircuitBreaker:
    """Counts the consecutive failures of each host, on one replica."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        failure_threshold: int = FAILURE_THRESHOLD,
        open_s: float = OPEN_S,
    ) -> None:
        """Pause a host for `open_s` seconds after `failure_threshold` consecutive failures.

        After the pause a single failure opens the circuit again.

        Args:
            clock: monotonic, in seconds.
            failure_threshold: number of consecutive failures.
            open_s: length of a pause.
        """
        self._clock = clock
        self._failure_threshold = failure_threshold
        self._open_s = open_s
        self._failing: OrderedDict[str, _FailingHost] = OrderedDict()

    def open_hosts(self) -> set[str]:
        """Return the hosts that are paused now."""
        now = self._clock()
        return {host for host, state in self._failing.items() if state.open_until > now}

    def record(self, host: str, *, failed: bool) -> bool:
        """Record the result of an attempt; return True if it opened the circuit of the host."""
        if not failed:
            self._failing.pop(host, None)
            return False
        state = self._failing.setdefault(host, _FailingHost())
        self._failing.move_to_end(host)
        while len(self._failing) > MAX_FAILING_HOSTS:
            self._failing.popitem(last=False)
        state.failures += 1
        if state.failures < self._failure_threshold:
            return False
        was_closed = state.open_until <= self._clock()
        state.open_until = self._clock() + self._open_s
        return was_closed
