"""How long things take: durations as people write them, and pauses that grow."""

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import TypeAlias

Duration: TypeAlias = timedelta | float
"""A length of time: a `timedelta`, or a number of seconds."""


def seconds(duration: Duration) -> float:
    """Return the duration as a number of seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def growing_pauses(*, first: float, most: float) -> Iterator[float]:
    """Yield pauses in seconds, for ever: each about twice the one before, none above `most`.

    Each is shortened at random by up to a half, so that clients that were disturbed together do
    not come back together.
    """
    pause = first
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
        pause = min(2 * pause, most)
