"""API keys: ``mp_`` + key id + ``_`` + secret + checksum.

The prefix makes a leaked key easy to find, and the checksum lets a scanner discard look-alikes
without asking anybody (the design of GitHub's tokens). The key is shown once; what is kept is
its SHA-256, which is enough for a secret of 192 random bits.
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
"""Base62 digits that 192 bits need."""
_PATTERN: Final = re.compile(
    rf"{PREFIX}([0-9a-f]{{{2 * KEY_ID_BYTES}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}}"
    rf"([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)
_NO_DIGEST: Final = bytes(32)
_GRANT: Final = re.compile(r"(?=.)[^\s*]*\*?")
MOST_GRANTS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What may be told about an API key: everything but the key. Times are aware and in UTC."""

    key_id: str
    subject: str
    roles: frozenset[Role]
    functions: tuple[str, ...]
    create_time: datetime
    expire_time: datetime | None
    last_used_time: datetime | None
    """May lag by a minute and a half."""
    revoke_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateKeyRequest:
    """A key that an admin asks to create."""

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
    """Revoked and expired ones too."""


def issue_key(
    *, subject: str, roles: Iterable[Role], functions: Iterable[str] = ()
) -> tuple[str, StoredKey]:
    """Return a fresh key for `subject`, and what is to be stored of it."""
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
    """Return the public id of a well-formed key, or nothing for any other text."""
    match = _PATTERN.fullmatch(key)
    if match is None or match[2] != _checksum(key[:-CHECKSUM_LENGTH]):
        return None
    return match[1]


def is_grant(text: str) -> bool:
    """Tell whether `text` grants functions: a name, or the beginning of names and a ``*``."""
    return text.isprintable() and _GRANT.fullmatch(text) is not None


def verify_key(key: str, stored: StoredKey | None) -> Principal | None:
    """Return whom `key` speaks for; an unknown key takes the same time as a wrong one."""
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
    """An API key as it is kept: who it speaks for, and the SHA-256 of the whole key."""

    principal: Principal
    digest: bytes


@dataclass(frozen=True, slots=True)
class CreateKeyResult:
    """A key as a create left it, or as an earlier call with this request_id left it."""

    key: ApiKey
    replayed: bool = False
