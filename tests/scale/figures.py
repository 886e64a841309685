"""Figures that a measurement compares with its targets, and their table."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table


class Figure(NamedTuple):
    """One measured value, beside its bound."""

    name: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_missed(self) -> bool:
        """True if the value is outside of its bound."""
        above = self.at_most is not None and self.value > self.at_most
        return above or (self.at_least is not None and self.value < self.at_least)

    @property
    def bound(self) -> str:
        """The text of the bound."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return "" if self.at_least is None else f"at least {self.at_least:g}"


def table(title: str, figures: Sequence[Figure]) -> Table:
    """Return the table of some figures."""
    shown = Table(title=title)
    for heading in ("what", "value", "unit", "bound", ""):
        shown.add_column(heading, justify="right" if heading == "value" else "left", no_wrap=True)
    for figure in figures:
        verdict = "" if not figure.bound else "MISSED" if figure.is_missed else "met"
        value = f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:.2f}"
        shown.add_row(figure.name, value, figure.unit, figure.bound, verdict)
    return shown
