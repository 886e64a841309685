"""How a command fails: one line for people, one JSON document for programs, one exit code."""

from __future__ import annotations

import json
import os
import sys
import traceback
from enum import IntEnum
from typing import Any, Final

from milepost.cli.output import one_line


class ExitCode(IntEnum):
    """What a script learns from the exit of a command."""

    OK = 0
    REFUSED = 1
    """The service or the database said no, or something else went wrong: see the reason."""
    USAGE = 2
    """The arguments, the settings, or an input file are not as they must be."""
    NOT_FOUND = 3
    """There is no such operation or key for the asker."""
    UNAVAILABLE = 4
    """Nothing answers, or not in time, or the operation had not ended: try again later."""
    ENDED_BADLY = 5
    """The operation that was followed has FAILED or was CANCELLED."""
    DENIED = 6
    """The API key is not valid, or lacks the role for the call."""
    INTERRUPTED = 130
    """Ctrl-C, or a signal to end."""


EXIT_CODES: Final = (
    "0 done; 1 refused, see the reason; 2 wrong arguments or settings; 3 no such operation or key;"
    " 4 unavailable, or timed out; 5 the operation ended FAILED or CANCELLED; 6 API key not valid"
    " for this; 130 interrupted"
)


class CommandError(Exception):
    """A command cannot do what it was asked to."""

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        code: str,
        exit_code: ExitCode,
        **facts: Any,
    ) -> None:
        """Say why.

        Args:
            message: for people, one sentence.
            reason: for programs, as the service names it or in its style.
            code: the gRPC code of the answer, or the one that fits.
            exit_code: for scripts.
            facts: further members of the JSON document. Each of the list `problems` is a line of
                its own for people.
        """
        super().__init__(message)
        self.reason = reason
        self.code = code
        self.exit_code = exit_code
        self.facts = facts

    @property
    def lines(self) -> list[str]:
        """What people read."""
        return self.facts.get("problems") or [str(self)]

    @property
    def document(self) -> dict[str, Any]:
        """What programs read."""
        error = {"reason": self.reason, "message": str(self), "code": self.code}
        return {"error": {**error, "exit_code": int(self.exit_code), **self.facts}}


def wrong_usage(message: str, *, reason: str = "USAGE", **facts: Any) -> CommandError:
    """Return the failure of a command that was not called as it must be."""
    return CommandError(
        message, reason=reason, code="INVALID_ARGUMENT", exit_code=ExitCode.USAGE, **facts
    )


def refused(message: str, *, reason: str = "REFUSED") -> CommandError:
    """Return the failure of a command that the state of this machine does not allow."""
    return CommandError(
        message, reason=reason, code="FAILED_PRECONDITION", exit_code=ExitCode.REFUSED
    )


def unexpected(error: BaseException) -> CommandError:
    """Return the failure for an error that nobody has thought of: its first line."""
    text = (str(error).strip() or repr(error)).splitlines()[0]
    known = isinstance(error, OSError)  # the system says what is wrong
    return CommandError(
        text if known else f"{type(error).__name__}: {text}",
        reason="SYSTEM" if known else "UNEXPECTED",
        code="UNKNOWN",
        exit_code=ExitCode.REFUSED,
    )


def report(failure: CommandError, *, as_json: bool) -> None:
    """Write the failure to standard error, with its traceback if the log level is debug."""
    # Settings may be what is wrong: the one variable is read past them.
    if os.environ.get("MILEPOST_LOG_LEVEL", "").lower() == "debug":
        traceback.print_exception(failure, file=sys.stderr)
    if as_json:
        lines = [json.dumps(failure.document)]
    else:
        lines = [f"error: {one_line(line)}" for line in failure.lines]
    sys.stderr.write("".join(f"{line}\n" for line in lines))
