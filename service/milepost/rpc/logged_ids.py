"""The ids in a request or response, redacted for the log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from milepost.domain.api_key import KEY_ID_BYTES
from milepost.domain.operation import ID_PATTERN
from milepost.gen.milepost.v1 import admin_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

REDACTED_CHARACTERS: Final = 12
"""Number of characters that the log keeps of a text that is not an id: enough to recognise it, too
few to disclose an API key or a token that a caller sent in the wrong field."""
_FIELDS: Final[Mapping[str, re.Pattern[str]]] = {
    "operation_id": ID_PATTERN,
    "delivery_id": re.compile(r"msg_[0-9a-f]{32}"),
    "key_id": re.compile(rf"[0-9a-f]{{{2 * KEY_ID_BYTES}}}"),
}
"""Pattern of the ids of each field, matched whole."""


def logged_ids(message: Any) -> dict[str, str]:
    """Return the ids in `message`, a request or a response; a stream of messages has none.

    A value that is not an id is redacted.
    """
    found = {}
    for field, pattern in _FIELDS.items():
        value = getattr(message, field, "") or getattr(_api_key(message), field, "")
        if value:
            found[field] = redacted_id(value, pattern)
    return found


def granted(response: Any) -> dict[str, object]:
    """Return the subject and the grants of the API key in a response; empty if it has none."""
    key = _api_key(response)
    if key is None:
        return {}
    until = {"expire_time": key.expire_time.ToJsonString()} if key.HasField("expire_time") else {}
    return {
        "subject": key.subject,
        "roles": " ".join(pb.Role.Name(role).removeprefix("ROLE_") for role in key.roles),
        "functions": " ".join(key.functions),
        **until,
    }


def redacted_id(text: str, pattern: re.Pattern[str] = ID_PATTERN) -> str:
    """Return an id unchanged, and only the beginning of any other text."""
    is_id = len(text) <= _MAX_ID_LENGTH and pattern.fullmatch(text) is not None
    kept = text[:REDACTED_CHARACTERS]
    return text if is_id or kept == text else f"{kept}…"


_MAX_ID_LENGTH: Final = 64
"""Maximum length of an id; a longer text is not matched."""


def _api_key(message: Any) -> Any:
    return getattr(message, "api_key", None)
