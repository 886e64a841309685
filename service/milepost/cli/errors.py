"""Errors of commands: a line for people, a JSON document for programs, and an exit code."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final, TextIO

from milepost.cli.output import one_line


class ExitCode(IntEnum):
    """Exit code of a command."""

    OK = 0
    REFUSED = 1
    """The service or the database refused the call, or another error occurred: see the reason."""
    USAGE = 2
    """The arguments, the settings or an input file are invalid."""
    NOT_FOUND = 3
    """The operation or key does not exist for the caller."""
    UNAVAILABLE = 4
    """The service did not answer in time, or the operation has not ended: try again later."""
    ENDED_BADLY = 5
    """The watched operation ended FAILED or CANCELLED, or a test webhook was not delivered."""
    DENIED = 6
    """The API key is invalid or lacks the role for the call."""
    INTERRUPTED = 130
    """Ctrl-C."""


EXIT_CODES: Final = (
    "0 done; 1 refused, see the reason; 2 wrong arguments or settings; 3 no such operation or key;"
    " 4 unavailable, or timed out; 5 the operation ended FAILED or CANCELLED, or the test webhook"
    " was not delivered; 6 API key not valid for this; 130 interrupted"
)


class CommandError(Exception):
    """Failure of a command."""

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        code: str,
        exit_code: ExitCode,
        **facts: Any,
    ) -> None:
        """Describe the failure.

        Args:
            message: for people, one sentence.
            reason: for programs; that of the service, or one in its style.
            code: the gRPC code of the response, or the closest one.
            exit_code: for scripts.
            facts: further members of the JSON document. Each item of the list `problems` is
                printed on its own line for people.
        """
        super().__init__(message)
        self.reason = reason
        self.code = code
        self.exit_code = exit_code
        self.facts = facts

    @property
    def lines(self) -> list[str]:
        """The lines for people."""
        return self.facts.get("problems") or [str(self)]

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document for programs."""
        error = {"reason": self.reason, "message": str(self), "code": self.code}
        return {"error": {**error, "exit_code": int(self.exit_code), **self.facts}}


def wrong_usage(message: str, *, reason: str = "USAGE", **facts: Any) -> CommandError:
    """Return the failure of a command with invalid arguments, settings or input."""
    return CommandError(
        message, reason=reason, code="INVALID_ARGUMENT", exit_code=ExitCode.USAGE, **facts
    )


@contextlib.contextmanager
def settings_failures() -> Iterator[None]:
    """Turn invalid settings into a `CommandError`."""
    from milepost import config

    try:
        yield
    except config.SettingsError as error:
        raise wrong_usage(str(error), reason="INVALID_SETTINGS", problems=error.problems) from error


def refused(message: str, *, reason: str = "REFUSED") -> CommandError:
    """Return the failure of a command that the state of this machine prevents."""
    return CommandError(
        message, reason=reason, code="FAILED_PRECONDITION", exit_code=ExitCode.REFUSED
    )


def unexpected(error: BaseException) -> CommandError:
    """Return the failure for an unexpected error: its first line."""
    text = (str(error).strip() or repr(error)).splitlines()[0]
    known = isinstance(error, OSError)  # the system describes the problem
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return CommandError(
        text if known else f"{type(error).__name__}: {text}",
        reason="SYSTEM" if known else "UNEXPECTED",
        code="UNKNOWN",
        exit_code=ExitCode.REFUSED,
    )


def report(failure: CommandError, *, as_json: bool) -> None:
    """Write the failure to standard error, with a traceback if the log level is debug."""
    # The settings may be invalid: read this one variable directly.
    if os.environ.get("MILEPOST_LOG_LEVEL", "").lower() == "debug":
        traceback.print_exception(failure, file=sys.stderr)
    if as_json:
        lines = [json.dumps(failure.document)]
    else:
        lines = [f"error: {one_line(line)}" for line in failure.lines]
    try:
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.stderr.flush()
    except OSError:  # its reader has gone; the exit code still says it
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Send what is still buffered nowhere, so that Python does not fail to write it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
