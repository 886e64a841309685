"""The public keys of an issuer: fetched in time, at a bounded rate, and kept through an outage.

An issuer gets at most one request in `COOLDOWN_S`, and one at a time: tokens with invented key ids
cause no traffic. While it does not answer, the last good set stays in use.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from milepost import telemetry
from milepost.domain.errors import IdentityProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from milepost.domain.ports import KeySetSource

    Key = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

REFRESH_AGE_S: Final = 600.0
"""The age at which a set is fetched again, in the background."""
COOLDOWN_S: Final = 30.0
"""The least time between two requests to one issuer, for unknown keys and after failures too."""
MAX_AGE_S: Final = 24 * 3_600.0
"""The age up to which the last good set stays in use while the issuer does not answer."""
MAX_BYTES: Final = 1024 * 1024
"""The size of a set; sources read no more."""
MAX_KEYS: Final = 100
MIN_RSA_BITS: Final = 2048
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}


class BadKeySet(Exception):
    """The answer of the issuer is not a key set with a usable key."""


class KeySet:
    """The keys of one issuer. Lives on one event loop."""

    def __init__(
        self,
        issuer: str,
        source: KeySetSource,
        algorithms: Iterable[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without keys; `clock` gives seconds that never go back."""
        self._issuer = issuer
        self._source = source
        self._algorithms = tuple(algorithms)
        self._clock = clock
        self._keys: dict[tuple[str, str], Key] = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        self._refresh: asyncio.Task[None] | None = None

    async def find(self, key_id: str, algorithm: str) -> Key | None:
        """Return the key with this id if it is one for this algorithm.

        Raises:
            IdentityProviderUnavailable: no set was fetched, because the issuer does not answer.
        """
        if self._age() > REFRESH_AGE_S:
            self._refresh_soon()
        key = self._usable().get((key_id, algorithm))
        if key is None:
            self._refresh_soon()
            if self._refresh is not None:
                # Shielded: the others that wait for it must not fail when this call is cancelled.
                await asyncio.shield(self._refresh)
                key = self._usable().get((key_id, algorithm))
        if key is None and not self._usable():
            raise IdentityProviderUnavailable
        return key

    async def close(self) -> None:
        """End a request that is under way."""
        if self._refresh is not None:
            self._refresh.cancel()
            await asyncio.gather(self._refresh, return_exceptions=True)

    def _age(self) -> float:
        return float("inf") if self._fetched is None else self._clock() - self._fetched

    def _usable(self) -> dict[tuple[str, str], Key]:
        return self._keys if self._age() <= MAX_AGE_S else {}

    def _refresh_soon(self) -> None:
        """Begin to fetch the set, unless a request is under way or was made a moment ago."""
        now = self._clock()
        cooling = self._tried is not None and now - self._tried < COOLDOWN_S
        if self._refresh is None and not cooling:
            self._tried = now
            self._refresh = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        """Replace the set, if what the issuer answers is one; never fails."""
        try:
            keys = keys_from(await self._source.fetch(), self._algorithms)
        except (BadKeySet, OSError) as error:
            telemetry.log.warning(
                "keys of the issuer not fetched",
                issuer=self._issuer,
                problem=str(error) or type(error).__name__,
                usable=len(self._usable()),
            )
        else:
            self._keys, self._fetched = keys, self._clock()
        finally:
            self._refresh = None


def keys_from(body: bytes, algorithms: Iterable[str]) -> dict[tuple[str, str], Key]:
    """Return the keys of a JWK set that fit one of the algorithms, by id and algorithm.

    Raises:
        BadKeySet: the body is not a key set, or has no usable key. The text quotes nothing of it.
    """
    try:
        listed = json.loads(body)["keys"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise BadKeySet("no JWK set") from None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise BadKeySet(f"no list of at most {MAX_KEYS} keys")
    found: dict[tuple[str, str], Key] = {}
    for item in listed:
        for algorithm in algorithms:
            key = _key(item, algorithm)
            if key is not None:
                found.setdefault((item["kid"], algorithm), key)
    if not found:
        raise BadKeySet("no key that can be used")
    return found


def _key(item: Any, algorithm: str) -> Key | None:
    """Return the public key of a JWK, if it is meant and fit for signatures of `algorithm`."""
    try:
        if (
            not isinstance(item["kid"], str)
            or item.get("use", "sig") != "sig"
            or item.get("alg", algorithm) != algorithm
            or "verify" not in item.get("key_ops", ["verify"])
            or "d" in item  # a private key that was published is no key any more
        ):
            return None
        key: Any = jwt.get_algorithm_by_name(algorithm).from_jwk(item)
    except Exception:  # noqa: BLE001 - whatever is wrong with one key, the others serve
        return None
    return key if _fits(key, algorithm) else None


def _fits(key: object, algorithm: str) -> bool:
    if algorithm.startswith(("RS", "PS")):
        return isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA_BITS
    if algorithm in _CURVES:
        return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == _CURVES[algorithm]
    return algorithm == "EdDSA" and isinstance(key, ed25519.Ed25519PublicKey)
