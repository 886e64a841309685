"""What is compared with what."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

ECHO = "echo"
ECHO_AGAIN = "echo again"
"""The same server once more: what two identical ones differ by is the error of all ratios."""
ECHO_GATHERED = "echo gathered"
POSTGRES = "PostgreSQL"
"""The service on PostgreSQL, as it comes."""
POSTGRES_PLAIN = "PostgreSQL plain"
"""... with batching off."""
POSTGRES_SHARED = "limits in Redis"
"""The service on PostgreSQL, with limits that replicas share."""
POSTGRES_OPEN = "open to all"
"""The service on PostgreSQL without authentication and limits, which only the bench can run."""
SQLITE = "SQLite"
"""The service on its embedded store."""
AIOSQLITE = "aiosqlite peer"
FASTAPI = "FastAPI peer"
POSTGRES_UNARY = "PostgreSQL unary"
"""The service on PostgreSQL, with a call for each report instead of a stream."""
SKIP_LOCKED = "SKIP LOCKED"
"""The bare statement that claims, without a server."""

SCENARIOS = ("create", "get", "update", "complete")
CALLERS = (1, 32, 256)
LIFE = "life"
LIFE_CALLERS = (1, 32)
ACCESS = "access"
"""Reads by what may be done at all: what authentication and limits cost."""
ACCESS_CALLERS = 32

STREAM = "stream"
WATCH = "watch"
CLAIM = "claim"
LIVE = frozenset({STREAM, WATCH, CLAIM})
"""What is not one call after the other, or not by itself."""

HALF = 0.5
SHORT = 1.0
LONG = 3.0
"""A full life of the naive peer takes a second at 32 callers. All others of its block run as long:
what a measurement costs at its beginning and its end counts alike."""

CLOSE = frozenset({f"{LIFE}/32", "get/1", "get/32", "update/1"})
"""Blocks that come close to what is wanted of them, so that chance would decide."""

SERVERS = {POSTGRES_UNARY: POSTGRES}
"""Who answers, where it is not the name."""

DRIVER_BLOCK = "driver"
"""Updates without a server in front."""

WEBHOOKS = "webhooks"
POSTS = "aiohttp"
"""A loop of POSTs, each on a connection of its own, as every webhook has one."""
POSTS_KEPT = "aiohttp, kept"
"""The same on connections that are kept, as those of webhooks are not: to be seen, no target."""
DISPATCHER = "dispatcher"


class Comparison(NamedTuple):
    """One block of calls: who answers them; ratios are to the first."""

    scenario: str
    callers: int
    subjects: Sequence[str]
    about: str = ""
    """What it is named after, if not its scenario."""

    @property
    def name(self) -> str:
        """How `--only` and the report name it."""
        return block_name(self.about or self.scenario, self.callers)

    @property
    def stretch(self) -> float:
        """How much longer it is measured than others."""
        if self.scenario == LIFE and self.callers > 1:
            return LONG
        return HALF if self.scenario in {WATCH, CLAIM} else SHORT

    @property
    def times(self) -> int:
        """How often a round measures it: the median of what is close to a target needs more."""
        return 2 if self.name in CLOSE else 1


class Floor(NamedTuple):
    """Updates without a server: how many go into one transaction."""

    name: str
    database: str
    batch: int


def block_name(scenario: str, callers: int) -> str:
    """The name of a block."""
    return f"{scenario}/{callers}"


FLOORS = (
    Floor("psycopg, 1 at once", POSTGRES, 1),
    Floor("psycopg, 32 at once", POSTGRES, 32),
    Floor("psycopg, 256 at once", POSTGRES, 256),
    Floor("sqlite3, 1 at once", SQLITE, 1),
    Floor("sqlite3, 32 at once", SQLITE, 32),
    Floor("sqlite3, 256 at once", SQLITE, 256),
)


def comparisons() -> Iterator[Comparison]:
    """All blocks of calls."""
    for scenario in SCENARIOS:
        for callers in CALLERS:
            yield Comparison(scenario, callers, tuple(_subjects(scenario, callers)))
    for callers in LIFE_CALLERS:
        yield Comparison(LIFE, callers, (ECHO, POSTGRES, SQLITE, FASTAPI))
    guarded = (POSTGRES_OPEN, POSTGRES, POSTGRES_SHARED)
    yield Comparison("get", ACCESS_CALLERS, guarded, about=ACCESS)
    yield Comparison(STREAM, 32, (ECHO, POSTGRES, POSTGRES_UNARY))
    yield Comparison(WATCH, 256, (ECHO, POSTGRES))
    yield Comparison(CLAIM, 8, (SKIP_LOCKED, POSTGRES))


def _subjects(scenario: str, callers: int) -> Iterator[str]:
    yield ECHO
    if scenario == "update":
        yield ECHO_AGAIN
    # One caller would wait for the tick each time, and with him nobody.
    if scenario in {"update", "get"} and callers > 1:
        yield ECHO_GATHERED
    yield POSTGRES
    if callers <= 32:
        yield POSTGRES_PLAIN
    yield SQLITE
    if callers == 32:
        yield AIOSQLITE
