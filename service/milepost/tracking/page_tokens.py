"""Page tokens: the position from which a list goes on, valid for one caller and one list.

A token is the position and a MAC over the position, the caller and the filters. The MAC covers the
canonical form of the filters that are set: a token stays valid when a later release adds a filter.
A token grants no permission: a caller with a forged one would see only what it may read anyway.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from milepost import base64url
from milepost.domain.errors import InvalidRequest, Violation
from milepost.domain.fingerprint import canonical
from milepost.domain.selection import Position

if TYPE_CHECKING:
    from milepost.domain.api_key import KeySelection
    from milepost.domain.delivery import DeliverySelection
    from milepost.domain.history import EventSelection
    from milepost.domain.selection import Selection

    AnySelection = Selection | DeliverySelection | KeySelection | EventSelection

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_TIME: Final = struct.Struct(">q")
_MAC_BYTES: Final = 16
MAX_TOKEN_LENGTH: Final = 128


class PageTokens:
    """Makes and reads page tokens with one secret key, the same on every replica."""

    def __init__(self, key: bytes) -> None:
        """Use `key`, at least 32 random bytes."""
        self._key = key

    def issue(self, position: Position, *, subject: str, selection: AnySelection) -> str:
        """Return the token that goes on after `position` in this list of this subject."""
        microseconds = (position.create_time - _EPOCH) // _MICROSECOND
        packed = _TIME.pack(microseconds) + position.id.encode()
        return base64url.encoded(self._mac(packed, subject, selection) + packed)

    def read(self, token: str, *, subject: str, selection: AnySelection) -> Position:
        """Return the position of a token that this service issued for this very list.

        Raises:
            InvalidRequest: the token is malformed, tampered with, of another subject, or of a
                list with other filters.
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
        if len(token) > MAX_TOKEN_LENGTH:
            return None
        try:
            raw = base64url.decoded(token)
        except ValueError:
            return None
        mac, packed = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        return packed if hmac.compare_digest(mac, self._mac(packed, subject, selection)) else None

    def _mac(self, packed: bytes, subject: str, selection: AnySelection) -> bytes:
        bound = canonical((selection.collection, subject, selection))
        # The canonical form is ASCII without control characters: the zero byte ends it.
        return hmac.digest(self._key, bound + b"\0" + packed, hashlib.sha256)[:_MAC_BYTES]
