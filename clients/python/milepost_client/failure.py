"""The description of an exception as an error that the service can store, whatever it is."""

from contextlib import suppress
from typing import Final

from milepost_client.operation import OperationError

MAX_CODE_LENGTH: Final = 255
MAX_MESSAGE_LENGTH: Final = 10_000
"""In characters."""


def describe(problem: BaseException) -> OperationError:
    """Return the class of the exception as code, and its text as message."""
    code = _storable(type(problem).__name__, MAX_CODE_LENGTH)
    return OperationError(code, _storable(_text(problem), MAX_MESSAGE_LENGTH))


def _text(problem: BaseException) -> str:
    """Return the text of the exception, which is code of its own and may fail too."""
    for text in (str, repr):
        with suppress(Exception):
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
