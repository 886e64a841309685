"""Tokens (JWT): the principal of a valid one.

PyJWT checks the signature. The form and the claims of a token are checked here, against the
injected clock, from the cheap to the expensive. Whatever is wrong, the caller gets one answer.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import jwt

from milepost import base64url, telemetry
from milepost.domain.api_key import MAX_GRANTS, is_grant
from milepost.domain.errors import Unauthenticated
from milepost.domain.operation import Principal, Role
from milepost.domain.subject import subject_problem
from milepost.domain.trust import ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from milepost.access.key_sets import KeySet
    from milepost.domain.trust import Issuer

MAX_BYTES: Final = 8 * 1024
LEEWAY_S: Final = 60.0
"""How far the clocks of the issuer and of this replica may differ."""
MAX_LENGTH: Final = 255
"""Of a key id and a granted function, in characters."""
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_HEADERS: Final = frozenset({"alg", "typ", "kid", "x5t", "x5t#S256"})
"""The only header parameters a token may have: keys of its own (jwk, x5c), addresses of keys (jku,
x5u), extensions (crit), encryption and compression are refused with everything unknown."""
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TOKEN_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_ROLES: Final = frozenset(Role)
_SIGNATURES: Final = jwt.PyJWS(algorithms=ALGORITHMS)
"""Made once: to make it costs more than to check a signature."""


def is_token(text: str) -> bool:
    """Return whether `text` has the form of a signed token, and not too many characters."""
    return len(text) <= MAX_BYTES and _SHAPE.fullmatch(text) is not None


class _Refused(Exception):
    """The token is not valid; the constant text says why, for the log alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The principal of a token, and the seconds until it expires; negative within the leeway."""

    principal: Principal
    remaining: float


class Tokens:
    """Verifies tokens of the issuers that the operator trusts."""

    def __init__(
        self,
        issuers: Mapping[str, tuple[Issuer, KeySet]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Trust `issuers`, by name; `clock` gives seconds since 1970."""
        self._issuers = issuers
        self._clock = clock

    async def verify(self, token: str) -> Verified:
        """Return the principal of `token`.

        Raises:
            Unauthenticated: the token is not valid.
            IdentityProviderUnavailable: the keys of its issuer have never been fetched.
        """
        try:
            return await self._verify(token)
        except _Refused as refused:
            telemetry.log.debug("token refused", problem=str(refused))
            raise Unauthenticated from None

    async def close(self) -> None:
        """End the requests for keys that are under way."""
        for _, keys in self._issuers.values():
            await keys.close()

    async def _verify(self, token: str) -> Verified:
        if not is_token(token):
            raise _Refused("form")
        header, payload, _signature = map(_decoded, token.split("."))
        algorithm, key_id = _header(_object(header))
        claims = _object(payload)  # trusted only after the signature is checked
        issuer, keys = self._issuer(claims.get("iss"))
        if algorithm not in issuer.algorithms:
            raise _Refused("algorithm")
        key = await keys.find(key_id, algorithm)
        if key is None:
            raise _Refused("unknown key")
        try:
            _SIGNATURES.decode_complete(token, key, algorithms=[algorithm])
        except jwt.PyJWTError:
            raise _Refused("signature") from None
        now = self._clock()
        expire_time = _lifetime(claims, issuer, now)
        _audience(claims, issuer)
        return Verified(principal=_principal(claims, issuer, token), remaining=expire_time - now)

    def _issuer(self, name: object) -> tuple[Issuer, KeySet]:
        known = self._issuers.get(name) if isinstance(name, str) else None
        if known is None:
            raise _Refused("issuer")
        return known


def _decoded(segment: str) -> bytes:
    """Return the bytes of a segment, which is the one way to write them."""
    try:
        return base64url.decoded(segment)
    except ValueError:
        raise _Refused("not base64") from None


def _object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of a segment; a duplicate name is refused."""
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _Refused("not JSON") from None
    if not isinstance(value, dict):
        raise _Refused("no object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _no_constant(_name: str) -> None:
    raise ValueError


def _header(header: Mapping[str, Any]) -> tuple[str, str]:
    """Return algorithm and key id."""
    algorithm, kind, key_id = (header.get(name) for name in ("alg", "typ", "kid"))
    if not header.keys() <= _HEADERS:
        raise _Refused("header parameter")
    if not isinstance(kind, str) or not kind.isascii() or kind.lower() not in _TYPES:
        raise _Refused("type")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_LENGTH:
        raise _Refused("key id")
    if not isinstance(algorithm, str):
        raise _Refused("algorithm")
    return algorithm, key_id


def _lifetime(claims: Mapping[str, Any], issuer: Issuer, now: float) -> float:
    """Return when the token expires, if it is in force."""
    issued, expires = _time(claims, "iat"), _time(claims, "exp")
    begins = _time(claims, "nbf") if "nbf" in claims else issued
    if expires + LEEWAY_S <= now:
        raise _Refused("expired")
    if max(begins, issued) - LEEWAY_S > now:
        raise _Refused("not yet valid")
    if not 0 < expires - issued <= issuer.lifetime_max.total_seconds():
        raise _Refused("lifetime")
    return expires


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Refused("time")
    try:
        seconds = float(value)
    except OverflowError:
        raise _Refused("time") from None
    if not math.isfinite(seconds):
        raise _Refused("time")
    return seconds


def _audience(claims: Mapping[str, Any], issuer: Issuer) -> None:
    given = claims.get("aud")
    audiences = [given] if isinstance(given, str) else given
    if not isinstance(audiences, list) or not all(isinstance(name, str) for name in audiences):
        raise _Refused("audience")
    if issuer.audience not in audiences:
        raise _Refused("audience")
    if "cnf" in claims:
        raise _Refused("bound to a key of its holder")


def _principal(claims: Mapping[str, Any], issuer: Issuer, token: str) -> Principal:
    given = claims.get(issuer.subject_claim)
    if not isinstance(given, str) or subject_problem(given):
        raise _Refused("subject")
    subject = issuer.subject_prefix + given
    if subject_problem(subject):
        raise _Refused("subject")
    roles = _roles(_words(claims, issuer.roles_claim))
    if not roles:
        raise _Refused("roles")
    functions = _words(claims, issuer.functions_claim)
    if len(functions) > MAX_GRANTS or not all(map(_is_grant, functions)):
        raise _Refused("functions")
    return Principal(
        subject=subject,
        roles=roles,
        credential_id=_credential_id(claims, issuer, token),
        functions=tuple(sorted(set(functions))),
    )


def _roles(words: list[str]) -> frozenset[Role]:
    """Return the roles among the words, which may name those of other services too.

    Only ASCII: beyond it, other letters have the same upper case, such as a dotless i.
    """
    names = {word.upper() for word in words if word.isascii()}
    return frozenset(Role(name) for name in names & _ROLES)


def _is_grant(text: str) -> bool:
    return len(text) <= MAX_LENGTH and is_grant(text)


def _words(claims: Mapping[str, Any], name: str) -> list[str]:
    """Return a claim that is a list of texts, or one text of words (as `scope` is).

    Only spaces part words: another blank would make two words of what its issuer wrote as one.
    """
    value = claims.get(name, [])
    words = list(filter(None, value.split(" "))) if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise _Refused("roles or functions")
    return words


def _credential_id(claims: Mapping[str, Any], issuer: Issuer, token: str) -> str:
    """Return what may be shown and logged of a token: its id, or the beginning of a digest."""
    token_id = claims.get("jti")
    if not isinstance(token_id, str) or _TOKEN_ID.fullmatch(token_id) is None:
        token_id = "sha256:" + hashlib.sha256(token.encode()).hexdigest()[:16]
    return f"{issuer.issuer} {token_id}"
