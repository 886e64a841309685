"""The targets of the service, as ratios within a block."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench import plan
from tests.bench.rounds import Ratio, Results


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The lowest acceptable ratio of two subjects of a block."""

    block: str
    cell: str
    base: str
    required: float

    @property
    def name(self) -> str:
        """Return the name of the target in the report."""
        return f"{self.block}: {self.cell} / {self.base}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A target and the measured ratio."""

    target: Target
    ratio: Ratio | None

    @property
    def word(self) -> str:
        """Return REACHED, MISSED, or NOT MEASURED."""
        if self.ratio is None:
            return "NOT MEASURED"
        return "REACHED" if self.ratio.median >= self.target.required else "MISSED"


OF_ECHO = {"get": 0.6, "update": 0.6, "create": 0.5, "complete": 0.5}
OF_EMPTY_HTTP = 0.5
BATCHING_AT_32 = 1.8
BATCHING_AT_1 = 0.9
SQLITE_OF_AIOSQLITE = 3.0
LIFE_OF_NAIVE = 5.5
STREAM_OF_ECHO = 0.6
STREAM_OF_UNARY = 5.0
WATCH_OF_ECHO = 0.77
"""One change takes at most 1.3 times as long to reach all its watchers."""
TRACED_OF_UNTRACED = 0.95
BATCHED = ("get", "update")
WRITES = ("update", "create", "complete")


def targets() -> Iterator[Target]:
    """Return all targets."""
    for scenario, required in OF_ECHO.items():
        for callers in (32, 256):
            block = plan.block_name(scenario, callers)
            yield Target(block=block, cell=plan.POSTGRES, base=plan.ECHO, required=required)
    for scenario in BATCHED:
        for callers, required in ((32, BATCHING_AT_32), (1, BATCHING_AT_1)):
            block = plan.block_name(scenario, callers)
            yield Target(
                block=block, cell=plan.POSTGRES, base=plan.POSTGRES_PLAIN, required=required
            )
    for scenario in BATCHED:
        block = plan.block_name(scenario, 32)
        yield Target(
            block=block, cell=plan.POSTGRES_HTTP, base=plan.EMPTY_HTTP, required=OF_EMPTY_HTTP
        )
    # Writes only: a read through aiosqlite makes a third of the echo; three times is the echo.
    for scenario in WRITES:
        block = plan.block_name(scenario, 32)
        yield Target(
            block=block, cell=plan.SQLITE, base=plan.AIOSQLITE, required=SQLITE_OF_AIOSQLITE
        )
    yield Target(
        block=plan.block_name("update", 32),
        cell=plan.POSTGRES,
        base=plan.POSTGRES_UNTRACED,
        required=TRACED_OF_UNTRACED,
    )
    life = plan.block_name(plan.LIFE, 32)
    yield Target(block=life, cell=plan.POSTGRES, base=plan.FASTAPI, required=LIFE_OF_NAIVE)
    stream = plan.block_name(plan.STREAM, 32)
    yield Target(block=stream, cell=plan.POSTGRES, base=plan.ECHO, required=STREAM_OF_ECHO)
    yield Target(
        block=stream, cell=plan.POSTGRES, base=plan.POSTGRES_UNARY, required=STREAM_OF_UNARY
    )
    watch = plan.block_name(plan.WATCH, 256)
    yield Target(block=watch, cell=plan.POSTGRES, base=plan.ECHO, required=WATCH_OF_ECHO)


def verdicts(results: Results) -> list[Verdict]:
    """Compare the results of a run with the targets."""
    return [
        Verdict(target=each, ratio=results.ratio(each.block, each.cell, each.base))
        for each in targets()
    ]
