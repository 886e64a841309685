"""Page tokens: the position at which a list continues, valid for one subject and one selection.

A token holds the position and a MAC of it, the subject and the selection. It grants no access: a
forged token would still show only operations that its sender may read.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from milepost import base64url
from milepost.domain.errors import InvalidRequest, Violation
from milepost.domain.selection import Position

if TYPE_CHECKING:
    from milepost.domain.api_key import KeySelection
    from milepost.domain.delivery import DeliverySelection
    from milepost.domain.selection import Selection

    AnySelection = Selection | DeliverySelection | KeySelection

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_TIME: Final = struct.Struct(">q")
_MAC_BYTES: Final = 16
MAX_CHARACTERS: Final = 128


class PageTokens:
    """Issues and reads page tokens with one secret key, the same on every replica."""

    def __init__(self, key: bytes) -> None:
        """Use `key`, at least 32 random bytes."""
        self._key = key

    def issue(self, position: Position, *, subject: str, selection: AnySelection) -> str:
        """Return the token that continues this list of this subject after `position`."""
        microseconds = (position.create_time - _EPOCH) // _MICROSECOND
        packed = _TIME.pack(microseconds) + position.id.encode()
        return base64url.encoded(self._mac(packed, subject, selection) + packed)

    def read(self, token: str, *, subject: str, selection: AnySelection) -> Position:
        """Return the position of a token that this service issued for this list.

        Raises:
            InvalidRequest: the token is malformed or forged, or belongs to another subject or to
                a list with other filters.
        """
        packed = self._checked(token, subject, selection)
        if packed is None:
            problem = "is not a token of this list; start again without one"
            raise InvalidRequest(Violation("page_token", problem))
        (microseconds,) = _TIME.unpack_from(packed)
        return Position(
            create_time=_EPOCH + timedelta(microseconds=microseconds),
            id=packed[_TIME.size :].decode(),
        )

    def _checked(self, token: str, subject: str, selection: AnySelection) -> bytes | None:
        """Return the packed position, or None if the MAC does not match."""
        if len(token) > MAX_CHARACTERS:
            return None
        try:
            raw = base64url.decoded(token)
        except ValueError:
            return None
        mac, packed = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        return packed if hmac.compare_digest(mac, self._mac(packed, subject, selection)) else None

    def _mac(self, packed: bytes, subject: str, selection: AnySelection) -> bytes:
        bound = repr((subject, selection)).encode()
        return hmac.digest(self._key, packed + bound, hashlib.sha256)[:_MAC_BYTES]
