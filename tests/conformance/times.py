"""Times that a scenario names relative to the moment at which they are sent."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True)
class Ahead:
    """The time after so many seconds, as a text after RFC 3339."""

    seconds: float

    def __call__(self) -> str:
        """Return the time, from now."""
        return (datetime.now(UTC) + timedelta(seconds=self.seconds)).isoformat()
