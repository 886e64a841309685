"""The configuration of the log."""

from __future__ import annotations

import atexit
import logging
import time
from typing import TYPE_CHECKING, Final

import structlog

from milepost.logtext import as_json_line, as_text
from milepost.telemetry.tracing import current
from milepost.telemetry.writer import LineWriter

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger

_STANDARD_ERROR: Final = 2

log: FilteringBoundLogger = structlog.get_logger()


def configure_logs(*, level: str, as_json: bool) -> None:
    """Write log lines to standard error, as JSON or as coloured text."""
    threshold: int = getattr(logging, level.upper())
    render = as_json_line if as_json else as_text(structlog.dev.ConsoleRenderer())

    def lost(number: int) -> str:
        event = _stamp(None, "error", {"event": "log lines lost", "lines": number})
        event.pop("trace_id", None)  # the lines belong to many calls
        return str(render(None, "error", event))

    writer = LineWriter(_STANDARD_ERROR, lost)
    atexit.register(writer.finish)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        processors=[_stamp, structlog.processors.format_exc_info, render],
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=True,
    )


def _stamp(_logger: object, method: str, event: EventDict) -> EventDict:
    """Add the fields of every line: its level, its time, and the trace of the current call."""
    event["level"] = method
    event["timestamp"] = _clock.now()
    found = current.get()
    if found is not None:
        event["trace_id"] = found.ids[0]
    return event


class _Clock:
    """The current time as text. The part down to the second is formatted once a second."""

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
