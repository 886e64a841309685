"""Admission: whether this replica takes calls at all, and how many at once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.access.running_calls import RunningCalls
from milepost.domain.errors import Draining, Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CALLS: Final = 1_000
MAX_WAITING_CALLS: Final = 20_000


class Admission:
    """Refuses calls while the replica drains, and when too many are running.

    Calls that run and calls that wait are counted apart. Ten thousand calls that wait for a change
    cost memory and nothing else. A thousand calls that run are more than one process can do in a
    second, so later ones would wait in vain.
    """

    def __init__(
        self, *, max_calls: int = MAX_CALLS, max_waiting_calls: int = MAX_WAITING_CALLS
    ) -> None:
        """Admit up to `max_calls` that run, and `max_waiting_calls` that wait or stream."""
        self._draining = False
        self._max_calls = max_calls
        self._max_waiting_calls = max_waiting_calls
        self._waiting = 0
        self._quick = 0
        self.running = RunningCalls()
        """The admitted calls that end by themselves. Public ones are not among them."""
        self.streams = RunningCalls()
        """The admitted streams. A caller that does not read can hold up the end of its stream."""

    def close(self) -> None:
        """Admit no more calls; those that run go on."""
        self._draining = True

    @contextlib.contextmanager
    def admit(self, *, waits: bool, streams: bool = False) -> Iterator[None]:
        """Count a call while it runs.

        Args:
            waits: true if the call may wait for something to happen, instead of just running.
            streams: true if either side sends a stream. Such a call waits too.

        Raises:
            Draining: this replica takes no more calls; another one does.
            Overloaded: too many calls are running; a later try is served.
        """
        if self._draining:
            raise Draining
        if waits:
            if self._waiting >= self._max_waiting_calls:
                telemetry.record_limited("waiting_calls")
                raise Overloaded
        elif self._quick >= self._max_calls:
            telemetry.record_limited("calls")
            raise Overloaded
        calls = self.streams if streams else self.running
        calls.enter()
        self._waiting += waits
        self._quick += not waits
        try:
            yield
        finally:
            self._quick -= not waits
            self._waiting -= waits
            calls.leave()
