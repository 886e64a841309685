"""The run as tables for people and as JSON for programs."""

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import plan
from tests.bench.rounds import NULL_HIGH, NULL_LOW, Key, Ratio, Reading, Results
from tests.bench.targets import Verdict, verdicts

_LIBRARIES = ("grpcio", "protobuf", "sqlalchemy", "psycopg", "uvloop")
_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class Line:
    """One cell of a block, over all its measurements."""

    block: str
    cell: str
    rate: float
    p50: float
    p99: float
    ratio: Ratio | None
    payload: float
    server: float | None
    """Share of its core that the server used; well below 1, something else is the limit."""
    load: float
    """Share of the other core that the load used; the rest is left for PostgreSQL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The results of a run, and its settings."""

    results: Results
    settings: Mapping[str, Any]

    def lines(self) -> list[Line]:
        """Return one line for each measured cell."""
        return [
            self._line(Key(block.name, cell.name), block.cells[0].name)
            for block in self.results.blocks
            for cell in block.cells
        ]

    def null(self) -> Ratio | None:
        """Return the ratio of two identical servers."""
        return self.results.null(plan.ECHO_AGAIN, plan.ECHO)

    def faults(self) -> list[str]:
        """Return the reasons why the run is void; empty for a valid run."""
        null = self.null()
        found = [*self.results.mismatches(), *self.results.failures()]
        if null is not None and not NULL_LOW <= null.median <= NULL_HIGH:
            found.insert(0, f"two identical servers differ by {null.median:.2f}")
        return found

    def print(self, console: Console) -> None:
        """Print the tables."""
        console.print(self._measurements())
        console.print(_targets(verdicts(self.results)))
        console.print(self._null_sentence())
        faults = self.faults()
        if faults:
            console.print(f"VOID: {len(faults)} faults", style="bold red")
            for fault in faults[:_EXAMPLES]:
                console.print(f"  {fault}", style="red", markup=False)

    def write(self, path: Path) -> None:
        """Write the JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self._as_json(), indent=2) + "\n", encoding="utf-8")

    def _line(self, key: Key, base: str) -> Line:
        readings = self.results.readings[key]
        tallies = [reading.tally for reading in readings]
        return Line(
            block=key.block,
            cell=key.cell,
            rate=statistics.median(tally.rate for tally in tallies),
            p50=statistics.median(tally.percentile(0.5) for tally in tallies),
            p99=statistics.median(tally.percentile(0.99) for tally in tallies),
            ratio=self.results.ratio(key.block, key.cell, base),
            payload=sum(t.payload for t in tallies) / max(1, sum(t.calls for t in tallies)),
            server=_busy(readings),
            load=statistics.median(tally.spent / tally.seconds for tally in tallies),
        )

    def _measurements(self) -> Table:
        table = Table(title="medians of all rounds; ratios are to the first of the block")
        table.add_column("block", no_wrap=True)
        table.add_column("subject", no_wrap=True)
        for heading in ("per s", "p50 ms", "p99 ms", "ratio", "range", "bytes", "server", "load"):
            table.add_column(heading, justify="right", no_wrap=True)
        block = ""
        for line in self.lines():
            if line.block != block:
                table.add_section()
            table.add_row(line.block if line.block != block else "", line.cell, *_figures(line))
            block = line.block
        return table

    def _null_sentence(self) -> str:
        null = self.null()
        if null is None:
            return "The null pair was not measured: no ratio of this run is reliable."
        blocks = {
            block.name: self.results.ratio(block.name, plan.ECHO_AGAIN, plan.ECHO)
            for block in self.results.blocks
        }
        each = ", ".join(f"{name} {ratio.median:.2f}" for name, ratio in blocks.items() if ratio)
        return (
            f"Null pair: {null.median:.2f} over all rounds ({null.low:.2f}-{null.high:.2f};"
            f" {each}). The run is void outside {NULL_LOW}-{NULL_HIGH}."
        )

    def _as_json(self) -> dict[str, Any]:
        null = self.null()
        return {
            "settings": dict(self.settings),
            "python": platform.python_version(),
            "libraries": {name: version(name) for name in _LIBRARIES},
            "void": bool(self.faults()),
            "faults": self.faults(),
            "null": None if null is None else _ratio(null),
            "measurements": [
                {
                    "block": line.block,
                    "measured": line.cell,
                    "per_second": round(line.rate, 1),
                    "p50_ms": round(line.p50, 3),
                    "p99_ms": round(line.p99, 3),
                    "ratio": _ratio(line.ratio),
                    "reply_bytes": round(line.payload, 1),
                    "server_share": None if line.server is None else round(line.server, 3),
                    "load_share": round(line.load, 3),
                }
                for line in self.lines()
            ],
            "targets": [
                {
                    "name": verdict.target.name,
                    "required": verdict.target.required,
                    "measured": _ratio(verdict.ratio),
                    "verdict": verdict.word,
                }
                for verdict in verdicts(self.results)
            ],
        }


def _busy(readings: Sequence[Reading]) -> float | None:
    shares = [r.cpu / r.tally.seconds for r in readings if r.cpu is not None and r.tally.seconds]
    return statistics.median(shares) if shares else None


def _figures(line: Line) -> list[str]:
    ratio = line.ratio
    return [
        f"{line.rate:,.0f}" if line.rate >= 100 else f"{line.rate:,.1f}",
        f"{line.p50:.2f}",
        f"{line.p99:.2f}",
        "" if ratio is None else f"{ratio.median:.2f}",
        "" if ratio is None else f"{ratio.low:.2f}-{ratio.high:.2f}",
        f"{line.payload:.0f}" if line.payload else "",
        "" if line.server is None else f"{line.server:.0%}",
        f"{line.load:.0%}" if line.load else "",
    ]


def _targets(found: Sequence[Verdict]) -> Table:
    table = Table(title="targets")
    table.add_column("ratio")
    for heading in ("required", "measured", "range"):
        table.add_column(heading, justify="right")
    table.add_column("")
    styles = {"REACHED": "green", "MISSED": "bold red", "NOT MEASURED": "dim"}
    for verdict in found:
        ratio = verdict.ratio
        table.add_row(
            verdict.target.name,
            f"≥ {verdict.target.required:.2f}",
            "" if ratio is None else f"{ratio.median:.2f}",
            "" if ratio is None else f"{ratio.low:.2f}-{ratio.high:.2f}",
            verdict.word,
            style=styles[verdict.word],
        )
    return table


def _ratio(ratio: Ratio | None) -> dict[str, Any] | None:
    if ratio is None:
        return None
    return {
        "median": round(ratio.median, 3),
        "low": round(ratio.low, 3),
        "high": round(ratio.high, 3),
        "pairs": [round(value, 3) for value in ratio.values],
    }
