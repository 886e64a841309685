"""The lines of the log: what they look like, and that no text in them acts on who reads it.

Names, ids and messages come from strangers. A line break in one would forge a line, a terminal
escape would act on a screen, a character that turns the direction of writing would hide a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

_LARGEST: Final = 2**63 - 1
"""Most readers of JSON do not take larger numbers."""
_MARGIN: Final = "    | "
"""What the lines of a traceback begin with where people read them."""


def escaped(value: Any) -> Any:
    """Return `value` with every character that is not printed written as its escape.

    That is line breaks of every kind (U+2028 too), terminal escapes and other control characters,
    and those that are invisible or turn the direction of writing. What a list or a mapping holds
    is treated alike; numbers, truth values and nothing stay as they are.
    """
    match value:
        case str():
            return value if value.isprintable() else _escaped(value)
        case int() if abs(value) > _LARGEST:
            return str(value)
        case bool() | int() | float() | None:
            return value
        case list() | tuple() | set() | frozenset():
            return [escaped(item) for item in value]
        case dict():
            return {escaped(str(name)): escaped(item) for name, item in value.items()}
        case _:
            return escaped(str(value))


def harmless_lines(text: str, *, margin: str = "") -> str:
    """Return a text of several lines, such as a traceback, with each line harmless.

    Every line but the first begins with `margin`, so that none looks like a line of the log.
    """
    return f"\n{margin}".join(escaped(line) for line in text.split("\n"))


def _escaped(text: str) -> str:
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


# --- lines ---


def as_json_line(_logger: object, _method: str, event: EventDict) -> str:
    """Return the line as one JSON object, in which every text is harmless."""
    try:
        line = _encoded(event)
    except orjson.JSONEncodeError:  # a text that is none, or a number without end
        return _encoded(_neutral(event))
    # Without a backslash nothing had to be escaped, and of ASCII only DEL is never escaped.
    harmless_ascii = line.isascii() and "\x7f" not in line
    if "\\" not in line and (harmless_ascii or line.isprintable()):
        return line
    return _encoded(_neutral(event))


def _encoded(event: EventDict) -> str:
    return orjson.dumps(event, default=repr).decode()


def for_people(console: Processor) -> Processor:
    """Return `console` with harmless texts, and tracebacks set in."""

    def render(logger: object, method: str, event: EventDict) -> Any:
        event = _neutral(event)
        if "exception" in event:
            event["exception"] = harmless_lines(event["exception"], margin=_MARGIN)
        return console(logger, method, event)

    return render


def _neutral(event: EventDict) -> dict[str, Any]:
    """Return the event with every text harmless; of a traceback, each of its lines."""
    return {
        name: harmless_lines(value) if name == "exception" else escaped(value)
        for name, value in event.items()
    }
