"""What a message is about: the ids that it names, as far as they may stand in a log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from milepost.domain.api_key import KEY_ID_BYTES
from milepost.domain.operation import ID_PATTERN
from milepost.gen.milepost.v1 import admin_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN: Final = 12
"""How many characters are shown of a text that is no id: enough to recognise it, too few to give
away a key or a token that somebody sent in the wrong place."""
_FIELDS: Final[Mapping[str, re.Pattern[str]]] = {
    "operation_id": ID_PATTERN,
    "delivery_id": re.compile(r"msg_[0-9a-f]{32}"),
    "key_id": re.compile(rf"[0-9a-f]{{{2 * KEY_ID_BYTES}}}"),
}
"""The fields that name something, and what their ids look like, matched whole."""


def named(message: Any) -> dict[str, str]:
    """Return the ids in `message`, a request or an answer; a stream of messages names none.

    Whatever was sent in the place of an id is among them, but of what is none only the beginning.
    """
    found = {}
    for field, pattern in _FIELDS.items():
        value = getattr(message, field, "") or getattr(_api_key(message), field, "")
        if value:
            found[field] = shown(value, pattern)
    return found


def granted(answer: Any) -> dict[str, object]:
    """Return whose API key an answer is about, and what that key allows; empty if about none."""
    key = _api_key(answer)
    if key is None:
        return {}
    until = {"expire_time": key.expire_time.ToJsonString()} if key.HasField("expire_time") else {}
    return {
        "subject": key.subject,
        "roles": " ".join(pb.Role.Name(role).removeprefix("ROLE_") for role in key.roles),
        "functions": " ".join(key.functions),
        **until,
    }


def shown(text: str, pattern: re.Pattern[str] = ID_PATTERN) -> str:
    """Return an id as it is, and of any other text its beginning."""
    is_id = len(text) <= _LONGEST and pattern.fullmatch(text) is not None
    return text if is_id or len(text) <= SHOWN else f"{text[:SHOWN]}…"


_LONGEST: Final = 64
"""No id is longer; a text that is need not be matched."""


def _api_key(message: Any) -> Any:
    return getattr(message, "api_key", None)
