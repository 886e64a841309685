"""API keys: ``mp_`` + key id + ``_`` + secret + checksum.

The prefix makes a leaked key easy to find, and the checksum lets a scanner discard look-alikes
offline (the design of GitHub's tokens). The key is shown once. Only its SHA-256 is stored, which
is enough for a secret of 192 random bits.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from milepost.domain.fingerprint import fingerprint
from milepost.domain.operation import Principal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from milepost.domain.operation import Role

PREFIX: Final = "mp_"
KEY_ID_BYTES: Final = 8
SECRET_BYTES: Final = 24
"""192 random bits."""
CHECKSUM_LENGTH: Final = 6
_ALPHABET: Final = string.digits + string.ascii_letters
_SECRET_LENGTH: Final = 33
"""Base62 digits of 192 bits."""
_PATTERN: Final = re.compile(
    rf"{PREFIX}([0-9a-f]{{{2 * KEY_ID_BYTES}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}}"
    rf"([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)
_NO_DIGEST: Final = bytes(32)
_GRANT: Final = re.compile(r"(?=.)[^\s*]*\*?")
MAX_GRANTS: Final = 100
"""Function grants of one key or token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """The public part of an API key: everything but the secret. Times are aware and in UTC."""

    key_id: str
    subject: str
    roles: frozenset[Role]
    functions: tuple[str, ...]
    create_time: datetime
    expire_time: datetime | None
    last_used_time: datetime | None
    """May lag by up to 90 s."""
    revoke_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateKeyRequest:
    """The content of a key that an admin creates."""

    subject: str
    roles: tuple[Role, ...]
    functions: tuple[str, ...] = ()
    expire_time: datetime | None = None
    request_id: str | None = None

    @property
    def fingerprint(self) -> str:
        """The digest that tells a retry of this create from another use of its request_id."""
        return fingerprint(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySelection:
    """Filters of a list of API keys. An absent one is no condition."""

    collection: ClassVar = "api_keys"
    """Names the list in page tokens: never changes."""

    subject: str | None = None
    inactive: bool = False
    """Include revoked and expired keys."""


def issue_key(
    *, subject: str, roles: Iterable[Role], functions: Iterable[str] = ()
) -> tuple[str, StoredKey]:
    """Return a new key for `subject`, and the part of it to store."""
    key_id = secrets.token_hex(KEY_ID_BYTES)
    secret = _base62(int.from_bytes(secrets.token_bytes(SECRET_BYTES)), _SECRET_LENGTH)
    body = f"{PREFIX}{key_id}_{secret}"
    key = body + _checksum(body)
    principal = Principal(
        subject=subject,
        roles=frozenset(roles),
        credential_id=key_id,
        functions=tuple(functions),
    )
    return key, StoredKey(principal=principal, digest=_digest(key))


def key_id_of(key: str) -> str | None:
    """Return the public id of a well-formed key, or None for any other text."""
    match = _PATTERN.fullmatch(key)
    if match is None or match[2] != _checksum(key[:-CHECKSUM_LENGTH]):
        return None
    return match[1]


def is_grant(text: str) -> bool:
    """Return whether `text` grants functions: a name, or a prefix of names and a ``*``."""
    return text.isprintable() and _GRANT.fullmatch(text) is not None


def verify_key(key: str, stored: StoredKey | None) -> Principal | None:
    """Return the principal of `key`, or None; an unknown and a wrong key take the same time."""
    digest = stored.digest if stored is not None else _NO_DIGEST
    matches = hmac.compare_digest(_digest(key), digest)
    return stored.principal if matches and stored is not None else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """An API key as it is stored: its principal and the SHA-256 of the whole key."""

    principal: Principal
    digest: bytes


@dataclass(frozen=True, slots=True)
class CreateKeyResult:
    """The key that this create, or an earlier one with its request_id, made."""

    key: ApiKey
    replayed: bool = False
