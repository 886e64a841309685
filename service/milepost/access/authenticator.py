"""Authentication: the principal of an API key, a token or a client certificate."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry
from milepost.access.bad_credentials import MAX_FAILURES_PER_MINUTE, BadCredentials
from milepost.access.long_calls import LongCalls
from milepost.access.tokens import is_token
from milepost.domain.api_key import key_id_of, verify_key
from milepost.domain.errors import Unauthenticated, Unavailable
from milepost.domain.subject import is_reserved

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine
    from contextlib import AbstractAsyncContextManager

    from milepost.access.certificates import Certificates
    from milepost.access.tokens import Tokens
    from milepost.domain.operation import Principal
    from milepost.domain.ports import CredentialStore

CACHE_TTL_S: Final = 4.0
"""How long a credential is trusted without another read: revocation takes effect within 5 s."""
CONFIRM_INTERVAL_S: Final = 1.5
"""Time between two reads that confirm the keys in use. One may fail without a look-up."""
CONFIRMED_USE_S: Final = 60.0
"""Time since its last use for which a key is confirmed; then its next use is a look-up."""
MAX_CONFIRMED: Final = 1_000
"""Keys that one statement confirms."""
USE_INTERVAL_S: Final = 60.0
"""Minimum time between two notes of the use of one key."""
MAX_CACHED: Final = 20_000
"""Credentials in memory, good and bad; about 1 kB each."""
_SCHEME: Final = "bearer "


class _CacheEntry:
    """The result of looking up one credential, or the look-up under way."""

    __slots__ = ("key_id", "look_up", "noted", "principal", "until", "used", "was_good")

    look_up: asyncio.Future[Principal | None]

    def __init__(self, now: float, *, was_good: bool) -> None:
        """Be valid for `CACHE_TTL_S`.

        Args:
            now: the time.
            was_good: whether the last finished look-up of the credential has found a principal.
        """
        self.until = now + CACHE_TTL_S
        self.was_good = was_good
        self.principal: Principal | None = None
        """The principal, once the look-up has found one."""
        self.key_id: str | None = None
        """The id of the API key; None for a token."""
        self.used = now
        self.noted = now
        """The time at which the use of the key was last noted."""


class Authenticator:
    """Finds the principal of a call from ``Bearer <API key or token>``, or from a certificate.

    A call with a credential is never authenticated by its certificate: one call has one
    credential.

    A credential is trusted for `CACHE_TTL_S` from the begin of the read that has found it good. For
    keys in use, `confirm_keys` repeats that read, many keys at a time. It also ends the long calls
    of keys that are good no longer.
    """

    def __init__(
        self,
        credentials: CredentialStore,
        *,
        tokens: Tokens | None = None,
        certificates: Certificates | None = None,
        note_use: Callable[[str], None] | None = None,
        reserved_subjects: tuple[str, ...] = (),
        failures_per_minute: int = MAX_FAILURES_PER_MINUTE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Trust API keys in `credentials`, and `tokens` and `certificates` if they are given.

        Args:
            credentials: where keys are looked up.
            tokens: verifies tokens.
            certificates: knows the principals of client certificates.
            note_use: is called with the id of each key that was used, about once a minute; must not
                block.
            reserved_subjects: the prefixes of the subjects of trusted issuers, which no key has.
            failures_per_minute: how many bad credentials are verified from one address; 0 is no
                limit.
            clock: gives seconds that never go back.
        """
        self._credentials = credentials
        self._tokens = tokens
        self._certificates = certificates
        self._note_use = note_use
        self._reserved_subjects = reserved_subjects
        self._bad_credentials = BadCredentials(failures_per_minute, clock)
        self._clock = clock
        self._cache: dict[str | bytes, _CacheEntry] = {}
        self._long_calls = LongCalls()

    async def authenticate(
        self,
        credential: str | bytes | None,
        address: Callable[[], str],
        certificate_names: Callable[[], Collection[str]] = tuple,
    ) -> Principal:
        """Return the principal of a call.

        Args:
            credential: the value of the ``Authorization`` header; None if the call has none.
            address: returns the address of the connection, without its port. Called only if the
                credential is not cached.
            certificate_names: returns the names of the client certificate of the connection.
                Called only if there is no credential and certificates are trusted.

        Raises:
            Unauthenticated: there is no credential, or it is not valid.
            RateLimited: there were too many bad credentials from this address.
            StoreUnavailable: the credential cannot be verified at the moment.
        """
        cached = self._cached(credential)
        if cached is not None:
            return cached
        try:
            if credential is None and self._certificates is not None:
                return self._certificates.principal(certificate_names())
            return await self._limited(credential or "", address())
        except Unauthenticated:
            raise Unauthenticated(
                tokens=self._tokens is not None, certificates=self._certificates is not None
            ) from None

    def while_good(self, credential: str | bytes | None) -> AbstractAsyncContextManager[None]:
        """Return the context of a call that waits or streams, and is authenticated.

        A call with an API key is cancelled when that is revoked or expires, and the context raises
        `Unauthenticated` then. Tokens and certificates are verified when a call begins.
        """
        secret = credential[len(_SCHEME) :] if isinstance(credential, str) else ""
        key_id = key_id_of(secret)
        return contextlib.nullcontext() if key_id is None else self._long_calls.of_key(key_id)

    def is_known(self, credential: str | bytes | None) -> bool:
        """Return True if the credential has been good before. Costs no look-up."""
        if credential is None:
            return self._certificates is not None  # the connection has shown a certificate
        entry = self._cache.get(credential)
        return entry is not None and (entry.was_good or entry.principal is not None)

    def _cached(self, credential: str | bytes | None) -> Principal | None:
        """Return the principal if the credential was verified a moment ago."""
        entry = None if credential is None else self._cache.get(credential)
        if entry is None or entry.until < (now := self._clock()):
            return None
        entry.used = now
        return entry.principal

    async def confirm_keys(self) -> None:
        """Read which of the keys in use are still good: trust these, and look the others up again.

        The long calls of the others end.

        Raises:
            StoreUnavailable: the keys cannot be read; they are trusted no longer than before.
        """
        in_use = self._keys_in_use()
        remaining = iter(in_use)
        while key_ids := list(itertools.islice(remaining, MAX_CONFIRMED)):
            now = self._clock()
            good = await self._credentials.good_keys(key_ids)
            for key_id in key_ids:
                if key_id not in good:
                    self._long_calls.end(key_id)
                for entry in in_use[key_id]:
                    entry.until = now + CACHE_TTL_S if key_id in good else -math.inf
                    self._note_repeated_use(key_id, entry)

    def _keys_in_use(self) -> dict[str, list[_CacheEntry]]:
        """Return the ids of the keys that have long calls or were used lately, with their entries.

        A long call uses its key as long as it lasts.
        """
        now, of_long_calls = self._clock(), self._long_calls.key_ids
        in_use: dict[str, list[_CacheEntry]] = {key_id: [] for key_id in of_long_calls}
        for entry in self._cache.values():
            if entry.key_id is None or entry.principal is None:
                continue
            if entry.key_id in of_long_calls:
                entry.used = now
            if entry.used >= now - CONFIRMED_USE_S:
                in_use.setdefault(entry.key_id, []).append(entry)
        return in_use

    def _note_repeated_use(self, key_id: str, entry: _CacheEntry) -> None:
        if self._note_use is not None and entry.used >= entry.noted + USE_INTERVAL_S:
            entry.noted = entry.used
            self._note_use(key_id)

    async def _limited(self, credential: str | bytes, address: str) -> Principal:
        """Verify a credential, unless its address has sent too many bad ones.

        A credential that was good before is always verified, so that a peer with bad credentials
        cannot shut out those who share its address.
        """
        entry = self._cache.get(credential)
        is_known = entry is not None and entry.was_good
        async with self._bad_credentials.verifying(address, limited=not is_known):
            return await self._verified(credential)

    async def _verified(self, credential: str | bytes) -> Principal:
        """Return the principal of a credential; calls with the same one share the look-up."""
        if not isinstance(credential, str) or not _is_bearer(credential):
            raise Unauthenticated
        entry = self._cache.get(credential)
        if entry is None or entry.until < self._clock():
            was_good = entry is not None and entry.was_good
            entry = _CacheEntry(self._clock(), was_good=was_good)
            entry.look_up = asyncio.ensure_future(self._begin(credential[len(_SCHEME) :], entry))
            if len(self._cache) >= MAX_CACHED:
                self._make_room()
            self._cache[credential] = entry
        try:
            # Shielded: other calls that wait for it must not fail when this call is cancelled.
            principal = await asyncio.shield(entry.look_up)
        except Exception as error:
            if entry.was_good and isinstance(error, Unavailable):
                entry.until = -math.inf  # looked up again, but still known as good
            elif self._cache.get(credential) is entry:
                del self._cache[credential]
            raise
        entry.was_good = principal is not None
        if principal is None:
            raise Unauthenticated
        entry.principal = principal
        return principal

    def _make_room(self) -> None:
        """Drop the credentials that are not trusted now, and if too few are, the oldest ones."""
        now = self._clock()
        trusted = [
            (credential, entry)
            for credential, entry in self._cache.items()
            if entry.principal is not None and entry.until >= now
        ]
        # A tenth is free then, so that this is rare.
        self._cache = dict(trusted[-(MAX_CACHED * 9 // 10) :])

    def _begin(self, secret: str, entry: _CacheEntry) -> Coroutine[Any, Any, Principal | None]:
        """Return the look-up of a text that has the form of a key or a token.

        Raises:
            Unauthenticated: it has neither form, so nothing is cached.
        """
        key_id = key_id_of(secret)
        if key_id is not None:
            entry.key_id = key_id
            return self._look_up(key_id, secret)
        if self._tokens is not None and is_token(secret):
            return self._verify(self._tokens, secret, entry)
        raise Unauthenticated

    async def _look_up(self, key_id: str, key: str) -> Principal | None:
        principal = verify_key(key, await self._credentials.find_key(key_id))
        if principal is not None and is_reserved(principal.subject, self._reserved_subjects):
            telemetry.log.warning(
                "API key refused", key_id=key_id, problem="its subject belongs to a trusted issuer"
            )
            return None
        if principal is not None and self._note_use is not None:
            self._note_use(key_id)
        return principal

    async def _verify(self, tokens: Tokens, token: str, entry: _CacheEntry) -> Principal:
        verified = await tokens.verify(token)
        # Not cached beyond the end of the token.
        entry.until = min(entry.until, self._clock() + verified.remaining)
        return verified.principal


def _is_bearer(credential: str) -> bool:
    """Return True for ``Bearer …`` in ASCII, whatever the letter case of the scheme."""
    return credential.isascii() and credential[: len(_SCHEME)].lower() == _SCHEME
