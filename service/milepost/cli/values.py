"""Values of options: durations, times, JSON and numbers, each refused in one sentence."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import typer

MAX_INT32: Final = 2**31 - 1
MAX_PRIORITY: Final = 9
_MAX_DURATION: Final = timedelta(days=100_000)
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd]?)", re.ASCII)
_SHOWN: Final = 60
"""Characters of a wrong value that an error repeats."""
_METADATA_EXAMPLE: Final = '{"source": "in.mov"}'


def quoted(text: str) -> str:
    """Return a wrong value for an error: quoted, and shortened if it is long."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def duration(text: str) -> timedelta:
    """Return the duration that a number and a unit name."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{quoted(text)} must be like 90, 90s, 15m, 24h or 7d")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > _MAX_DURATION.total_seconds():
        raise typer.BadParameter(f"{quoted(text)} is longer than {_MAX_DURATION.days} days")
    return timedelta(seconds=seconds)


def lifetime(text: str) -> timedelta:
    """Return a duration of at least one second."""
    found = duration(text)
    if found < timedelta(seconds=1):
        raise typer.BadParameter(f"{quoted(text)} must be at least 1s")
    return found


def moment(text: str) -> datetime:
    """Return a point in time: an age such as 2h, or a date with or without time, UTC by default."""
    if _DURATION.fullmatch(text.strip()):
        return datetime.now(UTC) - duration(text)
    return _time(text, "an age")


def future(text: str) -> datetime:
    """Return a point in time: a duration from now such as 2h, or a date as in `moment`."""
    if _DURATION.fullmatch(text.strip()):
        return datetime.now(UTC) + duration(text)
    return _time(text, "a duration")


def _time(text: str, other: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.strip())
        return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{quoted(text)} must be {other} such as 2h or 7d, or a time such as 2026-11-26 or"
            " 2026-11-26T15:30Z"
        ) from None


def json_object(text: str) -> dict[str, Any]:
    """Return a JSON object: of the text itself, of @FILE, or of standard input for @-."""
    name = text[1:] if text.startswith("@") else ""
    source = "standard input" if name == "-" else name
    try:
        value = json.loads(_read(name) if name else text)
    except OSError as error:
        raise typer.BadParameter(f"{source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{source} is not UTF-8 text") from error
    except RecursionError as error:
        raise typer.BadParameter(f"{source} is nested too deep".strip()) from error
    except ValueError as error:
        raise typer.BadParameter(f"{source} is not JSON: {error}".strip()) from error
    if not isinstance(value, dict):
        raise typer.BadParameter(
            f"{source} must be a JSON object, such as {_METADATA_EXAMPLE}".strip()
        )
    return value


def _read(name: str) -> str:
    if name != "-":
        return Path(name).read_text(encoding="utf-8")
    return sys.stdin.buffer.read().decode()
