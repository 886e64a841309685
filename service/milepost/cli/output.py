"""Standard output: JSON for programs, text and tables for people."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_MIN_WRAPPED: Final = 16
"""Minimum width of a wrapped column of a table, in characters."""
_UNLIMITED_WIDTH: Final = 100_000
"""Width of an output that is not a terminal, in characters: nothing is cut or wrapped there."""


class Output(StrEnum):
    """Output format of a command."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[
    Output,
    typer.Option("--output", "-o", help="Format of the output: for people, or for programs."),
]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print ids only, or nothing if the command has none."),
]


def print_json(document: Any, *, on_one_line: bool = False) -> None:
    """Write one JSON document: indented on a terminal, on one line elsewhere.

    Control characters are escaped: other users may have written them.
    """
    indent = 2 if sys.stdout.isatty() and not on_one_line else None
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    sys.stdout.write(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")
    sys.stdout.flush()


def console(*, to_errors: bool = False) -> Console:
    """Return a console that prints text, never markup."""
    from rich.console import Console

    stream = sys.stderr if to_errors else sys.stdout
    width = None if stream.isatty() else _UNLIMITED_WIDTH
    return Console(stderr=to_errors, width=width, markup=False, highlight=False, emoji=False)


def print_line(text: str) -> None:
    """Write one line for people."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """Write a warning to standard error."""
    sys.stderr.write(f"warning: {printable(text)}\n")


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    wrapped: str | None = None,
    optional: Sequence[str] = (),
) -> None:
    """Write a table, whose cells are never cut.

    On a terminal that is too narrow, the `optional` columns are left out, one after the other. If
    that is not enough, each cell of a row gets its own line.

    Args:
        headings: the names of the columns.
        rows: the cells.
        wrapped: the only column that is wrapped.
        optional: the columns that a narrow terminal has no place for, the first to go first.
    """
    out = console()
    cells = [dict(zip(headings, map(printable, row), strict=True)) for row in rows]
    for left_out in range(len(optional) + 1):
        names = [name for name in headings if name not in optional[:left_out]]
        table = _table(names, cells, wrapped)
        if _min_width(out, table) <= out.width:
            _print(out, table)
            return
    width = max(map(len, headings))
    for row in cells:
        lines = [f"{name.lower():{width}}  {value}".rstrip() for name, value in row.items()]
        print_line("\n".join([*lines, ""]))


def _table(names: Sequence[str], rows: Iterable[dict[str, str]], wrapped: str | None) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        if name == wrapped:
            table.add_column(name, overflow="fold", min_width=_MIN_WRAPPED)
        else:
            table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


def _min_width(out: Console, table: Table) -> int:
    from rich.measure import Measurement

    unlimited = out.options.update(max_width=_UNLIMITED_WIDTH)
    return Measurement.get(out, unlimited, table).minimum


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Write one pair of name and value a line; empty values are left out."""
    from rich.table import Table

    out = console()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim" if out.is_terminal else "", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        if value:
            table.add_row(name, printable(value))
    _print(out, table)


def _print(out: Console, table: Table) -> None:
    """Print the table; without trailing spaces if the output is not a terminal."""
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    sys.stdout.flush()


def printable(text: str) -> str:
    """Return `text` with its control characters escaped: other users may have written it."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Return `text` on one line."""
    return printable(" ".join(text.splitlines()))


def time_text(time: datetime | None) -> str:
    """Return a time for people, in UTC; empty for None."""
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def age_text(time: datetime) -> str:
    """Return the age of a time for people."""
    seconds = max(0, int((datetime.now(UTC) - time).total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def time_json(time: datetime | None) -> str | None:
    """Return a time for programs, in RFC 3339."""
    return None if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def size_text(count: int) -> str:
    """Return a number of bytes for people."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:  # noqa: PLR2004 - kilo
            break
        size, unit = size / 1000, larger
    return f"{size:.1f} {unit}" if unit != "bytes" else f"{count} {unit}"
