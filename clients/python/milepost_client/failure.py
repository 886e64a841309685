"""Failures of work: exceptions with which a function chooses its end, and errors of all others."""

from asyncio import CancelledError
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Final

from milepost_client.operation import Json, OperationError
from milepost_client.pace import Duration, seconds

MAX_CODE_LENGTH: Final = 255
MAX_MESSAGE_LENGTH: Final = 10_000
"""In characters."""


class PermanentFailure(Exception):
    """A failure that no other attempt can change: the operation fails at once.

    Raised by the function of an operation. Subclasses have their own name as `code`.

    Args:
        message: The reason as a text.
        code: The kind of error for programs; by default the name of the class.
        source: The part of the input or of the system that caused it.
        details: Further data.
    """

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        source: str | None = None,
        details: Mapping[str, Json] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.source = source
        self.details = dict(details or {})


class RetryLater(Exception):
    """A failure that another attempt may change, after a time that the function knows.

    Raised by the function of an operation. It counts as a failed attempt, and the delay replaces
    the pause of the retry policy.

    Args:
        delay: The time until the next attempt, at most 24 hours.
        message: The reason as a text.
    """

    def __init__(self, delay: Duration, message: str = "") -> None:
        super().__init__(delay, message)
        self.delay = timedelta(seconds=seconds(delay))
        self.message = message

    def __str__(self) -> str:
        return self.message or f"to be tried again in {self.delay}"


class AcknowledgeCancellation(Exception):
    """The end of a function that has stopped because a cancel was requested.

    Raised by the function of an operation, once `cancel_requested` is set. The operation ends as
    CANCELLED.
    """


def unstorable(refusal: BaseException) -> PermanentFailure:
    """Return the failure of an operation whose result cannot be stored for this reason."""
    failure = PermanentFailure(
        f"the result cannot be stored: {_text(refusal)}", code="UnstorableResult"
    )
    failure.__cause__ = refusal
    return failure


def describe(problem: BaseException) -> OperationError:
    """Return the class of the exception as code, and its text as message."""
    code, source, details = type(problem).__name__, None, {}
    if isinstance(problem, PermanentFailure):
        code, source, details = problem.code or code, problem.source, problem.details
    message = _storable(_text(problem), MAX_MESSAGE_LENGTH)
    return OperationError(_storable(str(code), MAX_CODE_LENGTH), message, source, details)


def refused(refusal: BaseException) -> OperationError:
    """Return the error that replaces one that cannot be stored for this reason."""
    text = _storable(f"The error was refused: {_text(refusal)}", MAX_MESSAGE_LENGTH)
    return OperationError("InvalidError", text)


def _text(problem: BaseException) -> str:
    """Return the text of the exception, which is code of its own and may fail, or exit, too."""
    for text in (str, repr):
        with suppress(Exception, SystemExit, CancelledError, GeneratorExit):
            if found := text(problem).strip():
                return found
    return f"{type(problem).__name__} without a readable text"


def _storable(text: str, max_length: int) -> str:
    """Return the text without what neither UTF-8 nor the store can hold."""
    return (
        text[:max_length]
        .replace("\0", "\\x00")
        .encode("utf-8", "backslashreplace")
        .decode()[:max_length]
    )
