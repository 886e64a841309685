"""The format of log lines, with all text escaped.

Names, ids and messages come from callers. A line break in one could forge a line, an escape
sequence could control the terminal of a reader, a bidirectional control could hide a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

_MAX_INTEGER: Final = 2**63 - 1
"""Largest integer that most JSON parsers accept."""
_MARGIN: Final = "    | "
"""Prefix of the lines of a traceback in text format."""


def escaped(value: Any) -> Any:
    """Return `value` with every non-printable character replaced by its escape.

    Those are line breaks of every kind (U+2028 too), terminal escapes and other control characters,
    invisible characters and bidirectional controls. The items of lists and mappings are escaped
    too; numbers, booleans and None stay as they are.
    """
    match value:
        case str():
            return value if value.isprintable() else _escaped(value)
        case int() if abs(value) > _MAX_INTEGER:
            return str(value)
        case bool() | int() | float() | None:
            return value
        case list() | tuple() | set() | frozenset():
            return [escaped(item) for item in value]
        case dict():
            return {escaped(str(name)): escaped(item) for name, item in value.items()}
        case _:
            return escaped(str(value))


def escaped_lines(text: str, *, margin: str = "") -> str:
    """Return a text of several lines, such as a traceback, with each line escaped.

    Every line but the first begins with `margin`, so that none looks like a log line.
    """
    return f"\n{margin}".join(escaped(line) for line in text.split("\n"))


def _escaped(text: str) -> str:
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


# --- lines ---


def as_json_line(_logger: object, _method: str, event: EventDict) -> str:
    """Return the event as one JSON object, with all text escaped."""
    try:
        line = _encoded(event)
    except orjson.JSONEncodeError:  # invalid Unicode, or an integer of more than 64 bits
        return _encoded(_escaped_event(event))
    # JSON escapes with a backslash every ASCII control character except DEL.
    printable_ascii = line.isascii() and "\x7f" not in line
    if "\\" not in line and (printable_ascii or line.isprintable()):
        return line
    return _encoded(_escaped_event(event))


def _encoded(event: EventDict) -> str:
    return orjson.dumps(event, default=repr).decode()


def as_text(console: Processor) -> Processor:
    """Return `console` with all text escaped, and tracebacks indented."""

    def render(logger: object, method: str, event: EventDict) -> Any:
        event = _escaped_event(event)
        if "exception" in event:
            event["exception"] = escaped_lines(event["exception"], margin=_MARGIN)
        return console(logger, method, event)

    return render


def _escaped_event(event: EventDict) -> dict[str, Any]:
    """Return the event with all text escaped; a traceback keeps its line breaks."""
    return {
        name: escaped_lines(value) if name == "exception" else escaped(value)
        for name, value in event.items()
    }
