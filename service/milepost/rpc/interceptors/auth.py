"""Auth: every call but the public ones speaks for a principal, or is refused unread.

Which roles a method is for is a column of `domain.policy.POLICY`. What a principal may do with one
operation is another, and is not decided here but in the WHERE clause of the read or the move.
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
from milepost.rpc.caller import admit
from milepost.rpc.interceptors.failures import FAILURES_PER_MINUTE, Failures
from milepost.rpc.named import named

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.domain.operation import Principal
    from milepost.domain.ports import CredentialStore
    from milepost.rpc.interceptors.chain import Call, Context, Proceed

PUBLIC: Final = frozenset({"grpc.health.v1.Health"})
"""Services that answer without a credential."""

ROLES: Final = {method: access.roles for method, access in POLICY.items()}
"""Which roles each method is for; one of them is enough. An unlisted method is refused."""
_AUDITED: Final = frozenset(method for method, access in POLICY.items() if access.changes)
"""The methods whose every success is a line of the audit log. Moves have lines of their own."""

FRESH_S: Final = 4.0
"""How long a verified key is trusted without asking the store: revocation works within 5 s."""
MOST_REMEMBERED: Final = 10_000
_SCHEME: Final = "bearer "


@functools.cache
def is_public(method: str) -> bool:
    """Tell whether a method answers without a credential."""
    return method.partition("/")[0] in PUBLIC


class Auth:
    """Finds out who calls, from ``authorization: Bearer <API key>``."""

    def __init__(
        self,
        credentials: CredentialStore,
        *,
        failures_per_minute: int = FAILURES_PER_MINUTE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look keys up in `credentials`; `clock` gives seconds that never go back.

        `failures_per_minute` bad credentials are looked at from one address; 0 is no limit.
        """
        self._credentials = credentials
        self._failures = Failures(failures_per_minute, clock)
        self._clock = clock
        self._known: dict[str | bytes, tuple[float, asyncio.Future[Principal | None]]] = {}

    async def around(self, proceed: Proceed, call: Call, request: Any, context: Context) -> Any:
        """Let the call in as its principal."""
        if is_public(call.method):
            return await proceed(call, request, context)
        header = call.metadata.get("authorization", "")
        principal = self._remembered(header) or await self._attempted(header, context)
        admit(principal)
        allowed = ROLES.get(call.method, frozenset())
        if allowed.isdisjoint(principal.roles):
            raise PermissionDenied(role=" or ".join(sorted(allowed)) or "none")
        answer = await proceed(call, request, context)
        if call.method in _AUDITED:
            telemetry.record_change(principal, named(request) | named(answer))
        return answer

    def _remembered(self, header: str | bytes) -> Principal | None:
        """Return whom the header speaks for if that was found out a moment ago."""
        known = self._known.get(header)
        if known is None or known[0] < self._clock() or not known[1].done():
            return None
        return None if known[1].exception() else known[1].result()

    async def _attempted(self, header: str | bytes, context: Context) -> Principal:
        """Find out whom the header speaks for, unless its peer has guessed too often.

        What was good before is always looked up, so that a peer with bad credentials cannot shut
        out those who share its address.
        """
        known = self._known.get(header)
        was_good = known is not None and known[1].done() and _is_good(known[1])
        peer = context.peer()
        if not was_good:
            self._failures.check(peer)
        try:
            return await self._verified(header)
        except Unauthenticated:
            self._failures.count(peer)
            raise

    async def _verified(self, header: str | bytes) -> Principal:
        """Find out whom the header speaks for; calls with the same one share the look-up."""
        if not isinstance(header, str) or header[: len(_SCHEME)].lower() != _SCHEME:
            raise Unauthenticated
        key = header[len(_SCHEME) :]
        key_id = key_id_of(key)
        if key_id is None:
            raise Unauthenticated
        known = self._known.get(header)
        if known is None or known[0] < self._clock():
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            look_up = asyncio.ensure_future(self._look_up(key_id, key))
            known = self._known[header] = (self._clock() + FRESH_S, look_up)
        try:
            # Shielded: the others that wait for it must not fail when this call is cancelled.
            principal = await asyncio.shield(known[1])
        except Exception:
            self._known.pop(header, None)
            raise
        if principal is None:
            raise Unauthenticated
        return principal

    async def _look_up(self, key_id: str, key: str) -> Principal | None:
        return verify_key(key, await self._credentials.find_key(key_id))


def _is_good(look_up: asyncio.Future[Principal | None]) -> bool:
    return not look_up.cancelled() and not look_up.exception() and look_up.result() is not None
