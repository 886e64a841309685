"""Auth: every call but the public ones speaks for a principal, or is refused unread.

Which roles a method is for is a column of `domain.policy.POLICY`. What a principal may do with one
operation is another, and is not decided here but in the WHERE clause of the read or the transition.
"""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry
from milepost.domain.api_key import key_id_of, verify_key
from milepost.domain.errors import PermissionDenied, Unauthenticated
from milepost.domain.policy import POLICY
from milepost.rpc.caller import admit, caller
from milepost.rpc.interceptors.bad_credentials import FAILURES_PER_MINUTE, Failures
from milepost.rpc.logged_ids import granted, named
from milepost.rpc.tokens import is_token

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from milepost.domain.operation import Principal
    from milepost.domain.ports import CredentialStore
    from milepost.rpc.certificates import Certificates
    from milepost.rpc.interceptors.chain import Call, CallNext, Context
    from milepost.rpc.tokens import Tokens

PUBLIC: Final = frozenset({"grpc.health.v1.Health"})
"""Services that answer without a credential."""

ROLES: Final = {method: access.roles for method, access in POLICY.items()}
"""Which roles each method is for; one of them is enough. An unlisted method is refused."""
_AUDITED: Final = frozenset(method for method, access in POLICY.items() if access.changes)
"""The methods whose every success is a line of the audit log. Moves have lines of their own."""

FRESH_S: Final = 4.0
"""How long a credential is trusted without a new look: revocation works within 5 s."""
MOST_REMEMBERED: Final = 10_000
_SCHEME: Final = "bearer "


@functools.cache
def is_public(method: str) -> bool:
    """Tell whether a method answers without a credential."""
    return method.partition("/")[0] in PUBLIC


class _Known:
    """What is found, or being found out, about one header."""

    __slots__ = ("look_up", "principal", "until")

    look_up: asyncio.Future[Principal | None]

    def __init__(self, until: float) -> None:
        """Trust it until then."""
        self.until = until
        self.principal: Principal | None = None
        """Whom it speaks for, once that was found out."""


async def _audited(call_next: CallNext, call: Call, request: Any, context: Context) -> Any:
    answer = await call_next(call, request, context)
    telemetry.record_change(caller(), {**named(request), **named(answer), **granted(answer)})
    return answer


class Auth:
    """Finds out who calls: from ``authorization: Bearer <API key or token>``.

    A call without that header is its client certificate's, if that stands for somebody. With the
    header the certificate says nothing: one call has one credential.
    """

    def __init__(
        self,
        credentials: CredentialStore,
        *,
        tokens: Tokens | None = None,
        certificates: Certificates | None = None,
        note_use: Callable[[str], None] | None = None,
        failures_per_minute: int = FAILURES_PER_MINUTE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Trust API keys in `credentials`, and `tokens` and `certificates` where there are any.

        Args:
            credentials: where keys are looked up.
            tokens: verifies tokens.
            certificates: knows client certificates.
            note_use: is told the id of each key that was looked up, and does not wait.
            failures_per_minute: how many bad credentials are looked at from one address; 0 is no
                limit.
            clock: gives seconds that never go back.
        """
        self._credentials = credentials
        self._tokens = tokens
        self._certificates = certificates
        self._note_use = note_use
        self._failures = Failures(failures_per_minute, clock)
        self._clock = clock
        self._known: dict[str | bytes, _Known] = {}

    async def intercept(
        self, call_next: CallNext, call: Call, request: Any, context: Context
    ) -> Any:
        """Authenticate the call, and let it on if its principal has a role of the method."""
        if is_public(call.method):
            return await call_next(call, request, context)
        principal = self._remembered(call.metadata.get("authorization"))
        if principal is None:
            principal = await self._principal(call, context)
        admit(principal)
        allowed = ROLES.get(call.method, frozenset())
        if allowed.isdisjoint(principal.roles):
            raise PermissionDenied(role=" or ".join(sorted(allowed)) or "none")
        if call.method in _AUDITED:
            return await _audited(call_next, call, request, context)
        return await call_next(call, request, context)

    async def _principal(self, call: Call, context: Context) -> Principal:
        header = call.metadata.get("authorization")
        try:
            if header is None and self._certificates is not None:
                return self._certificates.principal(context)
            return await self._attempted(header or "", context)
        except Unauthenticated:
            raise Unauthenticated(
                tokens=self._tokens is not None, certificates=self._certificates is not None
            ) from None

    def _remembered(self, header: str | bytes | None) -> Principal | None:
        """Return whom the header speaks for if that was found out a moment ago."""
        known = None if header is None else self._known.get(header)
        if known is None or known.until < self._clock():
            return None
        return known.principal

    async def _attempted(self, header: str | bytes, context: Context) -> Principal:
        """Find out whom the header speaks for, unless its peer has guessed too often.

        What was good before is always looked up, so that a peer with bad credentials cannot shut
        out those who share its address.
        """
        known = self._known.get(header)
        peer = context.peer()
        if known is None or known.principal is None:
            self._failures.check(peer)
        try:
            return await self._verified(header)
        except Unauthenticated:
            await self._failures.count(peer)
            raise

    async def _verified(self, header: str | bytes) -> Principal:
        """Find out whom the header speaks for; calls with the same one share the look-up."""
        if not isinstance(header, str) or header[: len(_SCHEME)].lower() != _SCHEME:
            raise Unauthenticated
        credential = header[len(_SCHEME) :]
        known = self._known.get(header)
        if known is None or known.until < self._clock():
            known = _Known(self._clock() + FRESH_S)
            known.look_up = asyncio.ensure_future(self._begin(credential, known))
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[header] = known
        try:
            # Shielded: the others that wait for it must not fail when this call is cancelled.
            principal = await asyncio.shield(known.look_up)
        except Exception:
            if self._known.get(header) is known:
                del self._known[header]
            raise
        if principal is None:
            raise Unauthenticated
        known.principal = principal
        return principal

    def _begin(self, credential: str, known: _Known) -> Coroutine[Any, Any, Principal | None]:
        """Return the look-up of a credential that has the form of one.

        Raises:
            Unauthenticated: it has not, so there is nothing to remember.
        """
        key_id = key_id_of(credential)
        if key_id is not None:
            return self._look_up(key_id, credential)
        if self._tokens is not None and is_token(credential):
            return self._verify(self._tokens, credential, known)
        raise Unauthenticated

    async def _look_up(self, key_id: str, key: str) -> Principal | None:
        principal = verify_key(key, await self._credentials.find_key(key_id))
        if principal is not None and self._note_use is not None:
            self._note_use(key_id)
        return principal

    async def _verify(self, tokens: Tokens, token: str, known: _Known) -> Principal:
        verified = await tokens.verify(token)
        # Not trusted from memory beyond its own end.
        known.until = min(known.until, self._clock() + verified.remaining)
        return verified.principal
