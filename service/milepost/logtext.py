"""The lines of the log: how they are written, and that no text in them acts on who reads it.

Names, ids and messages come from strangers. A line break in one would forge a line, a terminal
escape would act on a screen, a character that turns the direction of writing would hide a word.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

_MARGIN: Final = "    | "
"""What the lines of a traceback begin with where people read them."""


def harmless(value: Any) -> Any:
    """Return `value` with every character that is not printed written as its escape.

    That is line breaks of every kind (U+2028 too), terminal escapes and other control characters,
    and those that are invisible or turn the direction of writing. What a list or a mapping holds
    is treated alike; numbers, truth values and nothing stay as they are.
    """
    match value:
        case str():
            return value if value.isprintable() else _escaped(value)
        case bool() | int() | float() | None:
            return value
        case list() | tuple() | set() | frozenset():
            return [harmless(item) for item in value]
        case dict():
            return {harmless(str(name)): harmless(item) for name, item in value.items()}
        case _:
            return harmless(str(value))


def harmless_lines(text: str, *, margin: str = "") -> str:
    """Return a text of several lines, such as a traceback, with each line harmless.

    Every line but the first begins with `margin`, so that none looks like a line of the log.
    """
    return f"\n{margin}".join(harmless(line) for line in text.split("\n"))


def _escaped(text: str) -> str:
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


# --- lines ---


class LineWriter:
    """Writes the lines of one turn of the event loop at once; outside of a loop, each at once.

    A write for every line would let go of the interpreter lock in the middle of every call.
    """

    def __init__(self, file: TextIO) -> None:
        """Write to `file`, which is flushed after each turn."""
        self._file = file
        self._lines: list[str] = []

    def msg(self, line: str) -> None:
        """Take one line."""
        self._lines.append(line)
        if len(self._lines) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self._write)
        except RuntimeError:
            self._write()

    debug = info = warning = error = critical = exception = msg

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        self._file.write("\n".join(lines) + "\n")
        self._file.flush()


_encode: Final = json.JSONEncoder(default=repr).encode


def as_json_line(_logger: object, _method: str, event: EventDict) -> str:
    """Return the line as one JSON object."""
    return _encode(event)


def for_people(console: Processor) -> Processor:
    """Return `console` with tracebacks set in, so that no line of one looks like a log line."""

    def render(logger: object, method: str, event: EventDict) -> Any:
        if "exception" in event:
            event["exception"] = harmless_lines(event["exception"], margin=_MARGIN)
        return console(logger, method, event)

    return render


def neutralise(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Make every text of a line harmless; of a traceback, each of its lines."""
    for name, value in event.items():
        event[name] = harmless_lines(value) if name == "exception" else harmless(value)
    return event
