"""Rounds of measurements, shuffled, and compared only within the same minute.

The speed of a machine drifts by tens of percent. So compared subjects are in one block, a block
runs as a whole, once or more in every round, the order of blocks and within a block is drawn anew
each time, and a ratio is the median of the ratios of these pairs. Two identical servers show
how reliable a ratio is.
"""

import gc
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.bench.jobs import Tally

NULL_LOW, NULL_HIGH = 0.9, 1.1


class Reading(NamedTuple):
    """One measurement."""

    tally: Tally
    grown: int | None
    """Growth of the revisions in the database; None without a database."""
    cpu: float | None
    """CPU seconds of the server; None without a server."""


Measure = Callable[[float], Reading]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One measured subject."""

    name: str
    measure: Measure
    stretch: float = 1.0
    """Factor for the duration of the measurement, for blocks of long jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Cells that are compared; the ratios are to the first one."""

    name: str
    cells: Sequence[Cell]
    times: int = 1
    """Number of measurements in each round."""


class Key(NamedTuple):
    """The block and the cell of a measurement."""

    block: str
    cell: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """The ratios of one cell to another of its block, one for each time they were measured."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """Return the ratio to report."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """Return the lowest ratio of a pair."""
        return min(self.values)

    @property
    def high(self) -> float:
        """Return the highest ratio of a pair."""
        return max(self.values)


@dataclass(slots=True)
class Results:
    """Every measurement of a run: for each block and cell, in the order of time."""

    blocks: Sequence[Block]
    readings: dict[Key, list[Reading]] = field(default_factory=dict)

    def ratio(self, block: str, cell: str, base: str) -> Ratio | None:
        """Return the paired ratio of two cells of a block; None if one was not measured."""
        above = self.readings.get(Key(block, cell), [])
        below = self.readings.get(Key(block, base), [])
        pairs = zip(above, below, strict=True) if above and below else ()
        values = [a.tally.rate / b.tally.rate for a, b in pairs if b.tally.rate]
        return Ratio(values) if values else None

    def null(self, cell: str, base: str) -> Ratio | None:
        """Return the ratio of two identical servers, over all blocks and pairs."""
        found = [self.ratio(block.name, cell, base) for block in self.blocks]
        values = [value for ratio in found if ratio for value in ratio.values]
        return Ratio(values) if values else None

    def mismatches(self) -> list[str]:
        """Return where the database does not hold exactly the acknowledged transitions."""
        return [
            f"{key.block}, {key.cell}, measurement {number}: acknowledged"
            f" {reading.tally.transitions}, the revisions grew by {reading.grown}"
            for key, readings in self.readings.items()
            for number, reading in enumerate(readings, 1)
            if reading.grown is not None and reading.grown != reading.tally.transitions
        ]

    def failures(self) -> list[str]:
        """Return every call that failed or had a wrong reply."""
        return [
            f"{key.block}, {key.cell}, measurement {number}: {count} times: {reason}"
            for key, readings in self.readings.items()
            for number, reading in enumerate(readings, 1)
            for reason, count in reading.tally.failures.items()
        ]


def run(
    blocks: Sequence[Block], rounds: int, seconds: float, report: Callable[[str], None]
) -> Results:
    """Measure every cell of every block in each round, as often as the block says."""
    results = Results(blocks)
    gc.freeze()  # spares a scan of long-lived objects before each measurement
    try:
        for number in range(1, rounds + 1):
            for block, cell in _shuffled(blocks):
                report(f"round {number} of {rounds}: {block.name}, {cell.name}")
                reading = _undisturbed(cell, seconds)
                results.readings.setdefault(Key(block.name, cell.name), []).append(reading)
    finally:
        gc.unfreeze()
    return results


def _undisturbed(cell: Cell, seconds: float) -> Reading:
    """Measure between collections of garbage, not during one."""
    gc.collect()
    gc.disable()
    try:
        return cell.measure(seconds * cell.stretch)
    finally:
        gc.enable()


def _shuffled(blocks: Sequence[Block]) -> Iterator[tuple[Block, Cell]]:
    visits = [block for block in blocks for _ in range(block.times)]
    for block in random.sample(visits, len(visits)):
        for cell in random.sample(block.cells, len(block.cells)):
            yield block, cell
