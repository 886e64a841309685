"""The audit line, and the metric, of a refused call: the same for every protocol."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.domain.api_key import KEY_ID_BYTES
from milepost.domain.errors import LimitReached
from milepost.domain.operation import ID_PATTERN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from milepost.domain.errors import MilepostError
    from milepost.domain.operation import Principal

REDACTED_CHARACTERS: Final = 12
"""Number of characters that the log keeps of a text that is not an id: enough to recognise it, too
few to disclose an API key or a token that a caller sent in the wrong field."""
ID_PATTERNS: Final[Mapping[str, re.Pattern[str]]] = {
    "operation_id": ID_PATTERN,
    "delivery_id": re.compile(r"msg_[0-9a-f]{32}"),
    "key_id": re.compile(rf"[0-9a-f]{{{2 * KEY_ID_BYTES}}}"),
}
"""Pattern of the ids of each field that the log names, matched whole."""
_MAX_ID_LENGTH: Final = 64
"""Maximum length of an id; a longer text is not matched."""


def record_refusal(
    error: MilepostError, by: Principal | None, ids: Mapping[str, str], *, code: str
) -> None:
    """Log that a call, or one item of a stream, was refused, and count it if a limit did so.

    Args:
        error: why.
        by: the caller, if it is known.
        ids: what the call was about, by the names of its fields, as the caller wrote it.
        code: the status of the answer, as the protocol calls it.
    """
    telemetry.record_refusal(
        by, redacted_ids(ids), code=code, reason=error.reason, facts=error.facts
    )
    if isinstance(error, LimitReached):
        telemetry.record_limited(error.limit)


def redacted_ids(ids: Mapping[str, str]) -> dict[str, str]:
    """Return the ids, by the names of their fields; a value that is not an id is redacted."""
    return {field: redacted_id(text, ID_PATTERNS[field]) for field, text in ids.items() if text}


def redacted_id(text: str, pattern: re.Pattern[str] = ID_PATTERN) -> str:
    """Return an id unchanged, and only the beginning of any other text."""
    is_id = len(text) <= _MAX_ID_LENGTH and pattern.fullmatch(text) is not None
    kept = text[:REDACTED_CHARACTERS]
    return text if is_id or kept == text else f"{kept}…"
