"""Durations as people write them, and the pauses between tries."""

import random
from datetime import timedelta
from typing import Final, TypeAlias

from milepost_client.errors import MilepostError

Duration: TypeAlias = timedelta | float
"""A length of time: a `timedelta`, or a number of seconds."""

FIRST_PAUSE_S: Final = 0.05
MAX_PAUSE_S: Final = 2.0
"""Bounds of the pause that is added to the one that the service asks for."""


def seconds(duration: Duration) -> float:
    """Return the duration as a number of seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


class Backoff:
    """Pauses that grow from try to try: each is about twice the one before, up to a maximum.

    Each is shortened at random by up to a half, so that clients that were disturbed together do
    not come back together.
    """

    def __init__(self, *, first_s: float = FIRST_PAUSE_S, max_s: float = MAX_PAUSE_S) -> None:
        """Begin with the first pause."""
        self._first_s = self._next_s = first_s
        self._max_s = max_s

    def reset(self) -> None:
        """Begin again with the first pause: the last try was successful."""
        self._next_s = self._first_s

    def pause_s(self, error: MilepostError | None = None) -> float:
        """Return the next pause, in seconds, with the one that the error asks for added."""
        asked_s = seconds(error.retry_after or 0.0) if error is not None else 0.0
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, self._max_s)
        return asked_s + pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load only
