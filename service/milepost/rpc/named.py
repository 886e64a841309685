"""What a message is about: the ids that it names, as far as they may stand in a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from milepost.domain.api_key import KEY_ID_BYTES
from milepost.domain.operation import ID_LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELDS: Final[Mapping[str, int]] = {
    "operation_id": ID_LENGTH,
    "delivery_id": ID_LENGTH,
    "key_id": 2 * KEY_ID_BYTES,
}
"""The fields that name something, and how many characters of each are shown.

Whatever was sent as an id is shown, strangers' texts included, but never more of it than an id
has: who sends a whole key where its id belongs finds no secret in the log.
"""


def named(message: Any) -> dict[str, str]:
    """Return the ids in `message`, a request or an answer; a stream of messages names none."""
    found = {}
    for field, most in _FIELDS.items():
        value = getattr(message, field, "") or getattr(_api_key(message), field, "")
        if value:
            found[field] = value[:most]
    return found


def _api_key(message: Any) -> Any:
    return getattr(message, "api_key", None)
