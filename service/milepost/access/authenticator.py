"""Authentication: the principal of an API key, a token or a client certificate."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry
from milepost.access.bad_credentials import MAX_FAILURES_PER_MINUTE, BadCredentials
from milepost.access.tokens import is_token
from milepost.domain.api_key import key_id_of, verify_key
from milepost.domain.errors import Unauthenticated, Unavailable
from milepost.domain.subject import is_reserved

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from milepost.access.certificates import Certificates
    from milepost.access.tokens import Tokens
    from milepost.domain.operation import Principal
    from milepost.domain.ports import CredentialStore

CACHE_TTL_S: Final = 4.0
"""How long a credential is trusted without another look-up: revocation takes effect within 5 s."""
MAX_CACHED: Final = 10_000
_SCHEME: Final = "bearer "


class _CacheEntry:
    """The result of looking up one credential, or the look-up under way."""

    __slots__ = ("look_up", "principal", "until", "was_good")

    look_up: asyncio.Future[Principal | None]

    def __init__(self, until: float, *, was_good: bool) -> None:
        """Be valid until then.

        Args:
            until: the time.
            was_good: whether the last finished look-up of the credential has found a principal.
        """
        self.until = until
        self.was_good = was_good
        self.principal: Principal | None = None
        """The principal, once the look-up has found one."""


class Authenticator:
    """Finds the principal of a call from ``Bearer <API key or token>``, or from a certificate.

    A call with a credential is never authenticated by its certificate: one call has one
    credential.
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
            note_use: is called with the id of each key that was looked up; must not block.
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

    def is_known(self, credential: str | bytes | None) -> bool:
        """Return True if the credential has been good before. Costs no look-up."""
        if credential is None:
            return self._certificates is not None  # the connection has shown a certificate
        entry = self._cache.get(credential)
        return entry is not None and (entry.was_good or entry.principal is not None)

    def _cached(self, credential: str | bytes | None) -> Principal | None:
        """Return the principal if the credential was verified a moment ago."""
        entry = None if credential is None else self._cache.get(credential)
        if entry is None or entry.until < self._clock():
            return None
        return entry.principal

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
            entry = _CacheEntry(self._clock() + CACHE_TTL_S, was_good=was_good)
            entry.look_up = asyncio.ensure_future(self._begin(credential[len(_SCHEME) :], entry))
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
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

    def _begin(self, secret: str, entry: _CacheEntry) -> Coroutine[Any, Any, Principal | None]:
        """Return the look-up of a text that has the form of a key or a token.

        Raises:
            Unauthenticated: it has neither form, so nothing is cached.
        """
        key_id = key_id_of(secret)
        if key_id is not None:
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
