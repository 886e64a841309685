"""Auth: every call but the public ones speaks for a principal, or is refused unread.

What a principal may do with one operation is not decided here but in the WHERE clause of the
move; this link only knows which roles a method is for at all.
"""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING, Any, Final

from milepost.domain.api_key import key_id_of, verify_key
from milepost.domain.errors import PermissionDenied, Unauthenticated
from milepost.domain.operation import Role
from milepost.rpc.caller import admit
from milepost.rpc.tokens import is_token

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from milepost.domain.operation import Principal
    from milepost.domain.ports import CredentialStore
    from milepost.rpc.certificates import Certificates
    from milepost.rpc.interceptors.chain import Call, Context, Proceed
    from milepost.rpc.tokens import Tokens

PUBLIC: Final = frozenset({"grpc.health.v1.Health"})
"""Services that answer without a credential."""

_CALLER: Final = frozenset({Role.CALLER})
_READER: Final = frozenset({Role.CALLER, Role.WORKER, Role.ADMIN})
_CANCELLER: Final = frozenset({Role.CALLER, Role.ADMIN})
_DOER: Final = frozenset({Role.CALLER, Role.WORKER})
_WORKER: Final = frozenset({Role.WORKER})
_ADMIN: Final = frozenset({Role.ADMIN})

ROLES: Final = {
    "milepost.v1.OperationService/CreateOperation": _CALLER,
    "milepost.v1.OperationService/GetOperation": _READER,
    "milepost.v1.OperationService/ListOperations": _CANCELLER,
    "milepost.v1.OperationService/WaitOperation": _READER,
    "milepost.v1.OperationService/WatchOperation": _READER,
    "milepost.v1.OperationService/CancelOperation": _CANCELLER,
    "milepost.v1.OperationService/DeleteOperation": _CANCELLER,
    "milepost.v1.WorkerService/ClaimOperations": _WORKER,
    "milepost.v1.WorkerService/StartOperation": _DOER,
    "milepost.v1.WorkerService/UpdateProgress": _DOER,
    "milepost.v1.WorkerService/StreamProgress": _DOER,
    "milepost.v1.WorkerService/CompleteOperation": _DOER,
    "milepost.v1.WorkerService/FailOperation": _DOER,
    "milepost.v1.WebhookService/GetSigningSecret": _CALLER,
    "milepost.v1.WebhookService/RotateSigningSecret": _CALLER,
    "milepost.v1.WebhookService/ListDeliveries": _CALLER,
    "milepost.v1.WebhookService/RedeliverWebhook": _CALLER,
    "milepost.v1.WebhookService/SendTestWebhook": _CALLER,
    "milepost.v1.AdminService/CleanupExpired": _ADMIN,
    "milepost.v1.AdminService/CreateApiKey": _ADMIN,
    "milepost.v1.AdminService/ListApiKeys": _ADMIN,
    "milepost.v1.AdminService/RevokeApiKey": _ADMIN,
}
"""Which roles each method is for; one of them is enough. An unlisted method is refused."""

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

    __slots__ = ("look_up", "until")

    look_up: asyncio.Future[Principal | None]

    def __init__(self, until: float) -> None:
        """Trust it until then."""
        self.until = until


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Trust API keys in `credentials`, and `tokens` and `certificates` where there are any.

        Args:
            credentials: where keys are looked up.
            tokens: verifies tokens.
            certificates: knows client certificates.
            note_use: is told the id of each key that was looked up, and does not wait.
            clock: gives seconds that never go back.
        """
        self._credentials = credentials
        self._tokens = tokens
        self._certificates = certificates
        self._note_use = note_use
        self._clock = clock
        self._known: dict[str | bytes, _Known] = {}

    async def around(self, proceed: Proceed, call: Call, request: Any, context: Context) -> Any:
        """Let the call in as its principal."""
        if is_public(call.method):
            return await proceed(call, request, context)
        header = call.metadata.get("authorization")
        if header is None and self._certificates is not None:
            principal = self._certificates.principal(context)
        else:
            header = header or ""
            principal = self._remembered(header) or await self._verified(header)
        admit(principal)
        allowed = ROLES.get(call.method, frozenset())
        if allowed.isdisjoint(principal.roles):
            raise PermissionDenied(role=" or ".join(sorted(allowed)) or "none")
        return await proceed(call, request, context)

    def _remembered(self, header: str | bytes) -> Principal | None:
        """Return whom the header speaks for if that was found out a moment ago."""
        known = self._known.get(header)
        if known is None or known.until < self._clock() or not known.look_up.done():
            return None
        return None if known.look_up.exception() else known.look_up.result()

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
