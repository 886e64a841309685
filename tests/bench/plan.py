"""The comparisons of a run. Every subject belongs to a target, or is the base of one."""

from collections.abc import Sequence
from typing import NamedTuple

ECHO = "echo"
ECHO_AGAIN = "echo again"
"""A second echo: the difference of two identical servers is the error of all ratios."""
POSTGRES = "PostgreSQL"
"""The service on PostgreSQL with its default settings."""
POSTGRES_PLAIN = "PostgreSQL plain"
"""The service on PostgreSQL with batching off."""
POSTGRES_UNTRACED = "PostgreSQL untraced"
"""The service on PostgreSQL without traces. The others trace one call in a hundred."""
POSTGRES_UNARY = "PostgreSQL unary"
"""The service on PostgreSQL, with a call for each update instead of a stream."""
POSTGRES_HTTP = "PostgreSQL HTTP"
"""The service on PostgreSQL, called over HTTP."""
EMPTY_HTTP = "empty aiohttp"
"""A handler of the same HTTP server that does nothing."""
SQLITE = "SQLite"
"""The service on its embedded store."""
AIOSQLITE = "aiosqlite peer"
FASTAPI = "FastAPI peer"

LIFE = "life"
STREAM = "stream"
WATCH = "watch"
LIVE = frozenset({STREAM, WATCH})
"""Scenarios of streams and watches instead of consecutive calls."""

HALF = 0.5
SHORT = 1.0
LONG = 3.0
"""Factor for lives: at 32 callers a life of the naive peer takes a second. It is the same for all
subjects of a block, so that the start and the end of a measurement affect all equally."""

CLOSE = frozenset({f"{LIFE}/32", "get/1", "get/32", "update/1"})
"""Blocks whose results are close to their targets, and so need more measurements."""

SERVERS = {POSTGRES_UNARY: POSTGRES}
"""The server of a subject, unless it has the name of the subject."""


class Comparison(NamedTuple):
    """One block of calls and its subjects; ratios are to the first."""

    scenario: str
    callers: int
    subjects: Sequence[str]

    @property
    def name(self) -> str:
        """Return the name for the report and `--only`."""
        return block_name(self.scenario, self.callers)

    @property
    def stretch(self) -> float:
        """Return the length of a measurement, as a multiple of the usual one."""
        if self.scenario == LIFE:
            return LONG
        return HALF if self.scenario == WATCH else SHORT

    @property
    def times(self) -> int:
        """Return the number of measurements in a round."""
        return 2 if self.name in CLOSE else 1


COMPARISONS = (
    Comparison("get", 1, (POSTGRES_PLAIN, POSTGRES)),
    Comparison("get", 32, (ECHO, POSTGRES, POSTGRES_PLAIN, EMPTY_HTTP, POSTGRES_HTTP)),
    Comparison("get", 256, (ECHO, POSTGRES)),
    Comparison("update", 1, (POSTGRES_PLAIN, POSTGRES)),
    Comparison(
        "update",
        32,
        (
            ECHO,
            ECHO_AGAIN,
            POSTGRES,
            POSTGRES_PLAIN,
            POSTGRES_UNTRACED,
            SQLITE,
            AIOSQLITE,
            EMPTY_HTTP,
            POSTGRES_HTTP,
        ),
    ),
    Comparison("update", 256, (ECHO, ECHO_AGAIN, POSTGRES)),
    Comparison("create", 32, (ECHO, POSTGRES, SQLITE, AIOSQLITE)),
    Comparison("create", 256, (ECHO, POSTGRES)),
    Comparison("complete", 32, (ECHO, POSTGRES, SQLITE, AIOSQLITE)),
    Comparison("complete", 256, (ECHO, POSTGRES)),
    Comparison(LIFE, 32, (FASTAPI, POSTGRES)),
    Comparison(STREAM, 32, (ECHO, POSTGRES, POSTGRES_UNARY)),
    Comparison(WATCH, 256, (ECHO, POSTGRES)),
)


def block_name(scenario: str, callers: int) -> str:
    """Return the name of a block."""
    return f"{scenario}/{callers}"
