"""The circuit breaker: a pause for receivers that do not answer, attempt after attempt.

An answer of any status shows that the host works, so it ends every count: a 404 or a 500 concerns
the URL of one owner, and its schedule slows the retries of that delivery. Two kinds of failure
count, each for the callers that it concerns:

* No connection to the host: for all owners.
* A connection without an answer: for the destination, the owner's receivers on that host. Another
  owner's receiver on the same host may work.

A pause delays deliveries only: none is dropped, and none uses up an attempt of its schedule. A
receiver that failed last, also after a pause, is on trial: it gets one attempt at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FAILURE_THRESHOLD: Final = 10
OPEN_S: Final = 60.0
MAX_FAILING: Final = 1_000
"""Bound of the remembered receivers. The one whose last failure is oldest is dropped first."""


class Contact(Enum):
    """Result of an attempt, as far as it concerns the receiver."""

    NONE = auto()
    """Nothing was sent. This says nothing about the receiver."""
    UNREACHABLE = auto()
    """The host could not be connected to."""
    UNANSWERED = auto()
    """The host was connected to, but sent no complete answer in time."""
    ANSWERED = auto()
    """The host answered, with any status."""


@dataclass(slots=True)
class _Failures:
    count: int = 0
    open_until: float = 0.0


class CircuitBreaker:
    """Counts the consecutive failures of hosts and of destinations, on one replica."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        failure_threshold: int = FAILURE_THRESHOLD,
        open_s: float = OPEN_S,
    ) -> None:
        """Pause a receiver for `open_s` seconds after `failure_threshold` consecutive failures.

        After the pause a single failure opens the circuit again.

        Args:
            clock: monotonic, in seconds.
            failure_threshold: number of consecutive failures.
            open_s: length of a pause.
        """
        self._clock = clock
        self._failure_threshold = failure_threshold
        self._open_s = open_s
        self._failing: OrderedDict[str, _Failures] = OrderedDict()

    def paused(self) -> set[str]:
        """Return the hosts and destinations whose circuit is open."""
        now = self._clock()
        return {key for key, state in self._failing.items() if state.open_until > now}

    def on_trial(self) -> set[str]:
        """Return the hosts and destinations that failed last and are not paused."""
        now = self._clock()
        return {key for key, state in self._failing.items() if state.open_until <= now}

    def record(self, host: str, destination: str, contact: Contact) -> bool:
        """Record the result of an attempt; return True if it opened a circuit."""
        if contact is Contact.NONE:
            return False
        if contact is Contact.UNREACHABLE:
            return self._fail(host)
        self._failing.pop(host, None)
        if contact is Contact.UNANSWERED:
            return self._fail(destination)
        self._failing.pop(destination, None)
        return False

    def _fail(self, key: str) -> bool:
        state = self._failing.setdefault(key, _Failures())
        self._failing.move_to_end(key)
        while len(self._failing) > MAX_FAILING:
            self._failing.popitem(last=False)
        state.count += 1
        if state.count < self._failure_threshold:
            return False
        was_closed = state.open_until <= self._clock()
        state.open_until = self._clock() + self._open_s
        return was_closed
