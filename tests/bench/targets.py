"""What is wanted of the service, as ratios within a block."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench import plan
from tests.bench.rounds import Ratio, Results


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One ratio to reach."""

    block: str
    cell: str
    base: str
    wanted: float

    @property
    def name(self) -> str:
        """What is wanted, in words."""
        return f"{self.block}: {self.cell} / {self.base}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was reached."""

    target: Target
    ratio: Ratio | None

    @property
    def word(self) -> str:
        """REACHED, MISSED, or NOT MEASURED."""
        if self.ratio is None:
            return "NOT MEASURED"
        return "REACHED" if self.ratio.median >= self.target.wanted else "MISSED"


OF_ECHO = {"get": 0.55, "update": 0.55, "create": 0.45, "complete": 0.45}
BATCHING_AT_32 = 1.8
BATCHING_AT_1 = 0.9
SQLITE_OF_AIOSQLITE = 3.0
LIFE_OF_NAIVE = 6.0
OF_OPEN = 0.9
"""What authentication and limits leave of the throughput."""
WEBHOOKS_OF_POSTS = 0.5
STREAM_OF_ECHO = 0.6
STREAM_OF_UNARY = 5.0
WATCH_OF_ECHO = 0.77
"""One change takes at most 1.3 times as long to all its watchers."""
WRITES = ("update", "create", "complete")


def targets() -> Iterator[Target]:
    """Everything that is wanted."""
    for scenario, wanted in OF_ECHO.items():
        for callers in (32, 256):
            block = plan.block_name(scenario, callers)
            yield Target(block=block, cell=plan.POSTGRES, base=plan.ECHO, wanted=wanted)
    for scenario in OF_ECHO:
        for callers, wanted in ((32, BATCHING_AT_32), (1, BATCHING_AT_1)):
            block = plan.block_name(scenario, callers)
            yield Target(block=block, cell=plan.POSTGRES, base=plan.POSTGRES_PLAIN, wanted=wanted)
    # Writes only: a read through aiosqlite makes a third of the echo; three times is the echo.
    for scenario in WRITES:
        block = plan.block_name(scenario, 32)
        yield Target(block=block, cell=plan.SQLITE, base=plan.AIOSQLITE, wanted=SQLITE_OF_AIOSQLITE)
    yield from _live_targets()
    life = plan.block_name(plan.LIFE, 32)
    yield Target(block=life, cell=plan.POSTGRES, base=plan.FASTAPI, wanted=LIFE_OF_NAIVE)
    access = plan.block_name(plan.ACCESS, plan.ACCESS_CALLERS)
    for cell in (plan.POSTGRES, plan.POSTGRES_SHARED):
        yield Target(block=access, cell=cell, base=plan.POSTGRES_OPEN, wanted=OF_OPEN)
    yield Target(
        block=plan.WEBHOOKS, cell=plan.DISPATCHER, base=plan.POSTS, wanted=WEBHOOKS_OF_POSTS
    )


def _live_targets() -> Iterator[Target]:
    """Of streams and watches. Of claims nothing is wanted yet: the table shows what they cost."""
    stream = plan.block_name(plan.STREAM, 32)
    yield Target(block=stream, cell=plan.POSTGRES, base=plan.ECHO, wanted=STREAM_OF_ECHO)
    yield Target(block=stream, cell=plan.POSTGRES, base=plan.POSTGRES_UNARY, wanted=STREAM_OF_UNARY)
    watch = plan.block_name(plan.WATCH, 256)
    yield Target(block=watch, cell=plan.POSTGRES, base=plan.ECHO, wanted=WATCH_OF_ECHO)


def verdicts(results: Results) -> list[Verdict]:
    """How the run did."""
    return [
        Verdict(target=each, ratio=results.ratio(each.block, each.cell, each.base))
        for each in targets()
    ]
