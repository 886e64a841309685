"""The configuration of the log."""

from __future__ import annotations

import atexit
import logging
from typing import TYPE_CHECKING, Final, cast

import structlog

from milepost.logtext import as_json_line, as_text
from milepost.telemetry.call_trace import current
from milepost.telemetry.writer import LineWriter

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor

_STANDARD_ERROR: Final = 2
_stamp_time: Final = structlog.processors.TimeStamper(fmt="iso", utc=True)

_writers: Final[list[LineWriter]] = []
"""The writer in use, once the log is configured."""

log: FilteringBoundLogger = structlog.get_logger()


def configure_logs(*, level: str, as_json: bool, process: int | None = None) -> None:
    """Write log lines to standard error, as JSON or as coloured text.

    With `process`, each line has this number: several processes share one standard error.
    """
    threshold: int = getattr(logging, level.upper())
    render = as_json_line if as_json else as_text(structlog.dev.ConsoleRenderer())

    def add_process(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**event, "process": process}

    numbered: list[Processor] = [] if process is None else [add_process]

    def lost(lines: int) -> str:
        event: EventDict = {"event": "log lines lost", "lines": lines, "level": "error"}
        for add in numbered:
            event = cast("EventDict", add(None, "error", event))
        return str(render(None, "error", _stamp_time(None, "error", event)))

    writer = LineWriter(_STANDARD_ERROR, lost)
    _writers[:] = [writer]
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        processors=[
            structlog.processors.add_log_level,
            _stamp_time,
            _add_trace_id,
            *numbered,
            structlog.processors.format_exc_info,
            render,
        ],
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=True,
    )


def finish_log() -> None:
    """Write the remaining lines. The exit of the interpreter does so too, `os._exit` does not."""
    for writer in _writers:
        writer.finish()


atexit.register(finish_log)


def _add_trace_id(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Add the trace of the current call."""
    found = current.get()
    if found is not None:
        event["trace_id"] = found.ids[0]
    return event
