"""The log: how its lines come about."""

from __future__ import annotations

import atexit
import logging
import time
from typing import TYPE_CHECKING, Final

import structlog

from milepost.logtext import as_json_line, for_people
from milepost.telemetry.tracing import current
from milepost.telemetry.writer import LineWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, FilteringBoundLogger, Processor

_STANDARD_ERROR: Final = 2

log: FilteringBoundLogger = structlog.get_logger()


class Lines:
    """Writes the same lines as `log` without its detours: every change pays for one of them."""

    def __init__(self) -> None:
        """Write no line until `to` has told where."""
        self._threshold = logging.CRITICAL
        self._render: Processor = as_json_line
        self._put: Callable[[str], object] = str

    def to(self, put: Callable[[str], object], render: Processor, threshold: int) -> None:
        """Write lines of that level and above."""
        self._put, self._render, self._threshold = put, render, threshold

    def info(self, event: str, fields: dict[str, object]) -> None:
        """Write a line about what went well."""
        if self._threshold <= logging.INFO:
            self._line("info", event, fields)

    def warning(self, event: str, fields: dict[str, object]) -> None:
        """Write a line about what was refused."""
        if self._threshold <= logging.WARNING:
            self._line("warning", event, fields)

    def _line(self, level: str, event: str, fields: dict[str, object]) -> None:
        fields["event"] = event
        self._put(str(self._render(None, level, _stamp(None, level, fields))))


lines: Final = Lines()


def configure_logs(*, level: str, as_json: bool) -> None:
    """Write log lines to standard error: JSON, or readable with colours."""
    threshold: int = getattr(logging, level.upper())
    render = as_json_line if as_json else for_people(structlog.dev.ConsoleRenderer())

    def lost(number: int) -> str:
        event = _stamp(None, "error", {"event": "log lines lost", "lines": number})
        event.pop("trace_id", None)  # they were of many calls
        return str(render(None, "error", event))

    writer = LineWriter(_STANDARD_ERROR, lost)
    atexit.register(writer.finish)
    lines.to(writer.msg, render, threshold)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        processors=[_stamp, structlog.processors.format_exc_info, render],
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=True,
    )


def _stamp(_logger: object, method: str, event: EventDict) -> EventDict:
    """Add what every line has: how grave it is, when it was, and in which trace."""
    event["level"] = method
    event["timestamp"] = _clock.now()
    found = current.get()
    if found is not None:
        event["trace_id"] = found.ids[0]
    return event


class _Clock:
    """Tells the time as text; the part that is the same for a second is made once in it."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def now(self) -> str:
        second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{nanoseconds // 1000:06d}Z"


_clock: Final = _Clock()
