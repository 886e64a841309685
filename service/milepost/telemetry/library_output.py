"""Output of libraries and of the interpreter, turned into log lines of the service.

Their records, warnings, tracebacks and prints would reach standard error as they are, and may
contain text of callers. A log line has the text of a record with everything escaped. Of an
exception it has the class and the place: the text of an exception often quotes what was received,
such as a header.

gRPC's core writes to the file descriptor itself. The command line turns its log off.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from milepost.telemetry.logs import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

MAX_TEXT: Final = 2_000
"""Characters of a text that are logged."""


class _LibraryOutput:
    """Logs output of libraries. The log is not thread-safe: other threads log on the loop."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None

    def write(self, source: str, text: str, error: BaseException | None, *, failed: bool) -> None:
        log_on_loop(lambda: _log(source, text, error, failed=failed))


def _log(source: str, text: str, error: BaseException | None, *, failed: bool) -> None:
    fields = {"source": source, "text": text[:MAX_TEXT], **_facts(error)}
    if failed:
        log.error("library reported an error", **fields)
    else:
        log.warning("library reported a warning", **fields)


def _facts(error: BaseException | None) -> Mapping[str, str]:
    """Return the class of an exception, and the places that it came through."""
    if error is None:
        return {}
    places = []
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return {"error": type(error).__qualname__, "places": " < ".join(reversed(places[-8:]))}


_output: Final = _LibraryOutput()


def log_on_loop(write: Callable[[], object]) -> None:
    """Write a line at once in the main thread; those of other threads follow on the loop."""
    loop = _output.loop
    if loop is None or threading.current_thread() is threading.main_thread():
        write()
        return
    with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the process
        loop.call_soon_threadsafe(write)


_captured: Final[ContextVar[list[str] | None]] = ContextVar("milepost_captured", default=None)


@contextlib.contextmanager
def captured_library_output() -> Iterator[list[str]]:
    """Collect the records of libraries in this thread or task, instead of logging them."""
    texts: list[str] = []
    token = _captured.set(texts)
    try:
        yield texts
    finally:
        _captured.reset(token)


class _Records(logging.Handler):
    """Logs the records of the standard library's logging, also of warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a malformed record must not fail its caller
            text = str(record.msg)
        if (captured := _captured.get()) is not None:
            captured.append(text)
            return
        error = record.exc_info[1] if record.exc_info else None
        _output.write(record.name, text, error, failed=record.levelno >= logging.ERROR)


class _Lines(io.TextIOBase):
    """Stands in for `sys.stderr` and logs what is printed to it."""

    def __init__(self) -> None:
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        self._rest = self._rest[-MAX_TEXT:]
        for line in lines:
            _output.write("standard error", line, None, failed=False)
        return len(text)


@contextlib.contextmanager
def logged_library_output() -> Iterator[None]:
    """Log what libraries and the interpreter report, instead of writing it to standard error."""
    stderr, hooks = sys.stderr, (sys.unraisablehook, threading.excepthook)
    logging.basicConfig(handlers=[_Records()], level=logging.WARNING, force=True)
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)
    sys.stderr = _Lines()
    sys.unraisablehook = _unraisable
    threading.excepthook = _ended_thread
    try:
        yield
    finally:
        _output.loop = None
        sys.stderr = stderr
        sys.unraisablehook, threading.excepthook = hooks
        logging.captureWarnings(capture=False)
        logging.basicConfig(level=logging.WARNING, force=True)


def log_errors_of_loop() -> None:
    """Log what tasks and callbacks of the running loop fail with, and other threads report."""
    _output.loop = asyncio.get_running_loop()
    _output.loop.set_exception_handler(_unhandled)


def _unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    text = str(context.get("message", "unhandled exception"))
    _output.write("asyncio", text, context.get("exception"), failed=True)


def _unraisable(report: sys.UnraisableHookArgs) -> None:
    text = report.err_msg or "exception ignored"
    _output.write("interpreter", text, report.exc_value, failed=True)


def _ended_thread(report: threading.ExceptHookArgs) -> None:
    name = report.thread.name if report.thread else "unknown"
    _output.write("interpreter", f"thread {name} ended", report.exc_value, failed=True)
