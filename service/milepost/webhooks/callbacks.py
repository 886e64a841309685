"""The callback URL of a create: its check, and the secret that signs its webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.domain.callback_url import RefusedUrl, read_callback_url
from milepost.domain.errors import InvalidRequest, Violation
from milepost.webhooks.guard import Unresolvable

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.domain.callback_url import CallbackRules
    from milepost.tracking.signing_secrets import Secrets
    from milepost.webhooks.guard import Resolver


class CheckedCallbacks:
    """Fills the port `Callbacks`."""

    def __init__(
        self,
        rules: CallbackRules,
        resolver: Resolver,
        secrets: Secrets,
        wake: Callable[[], None],
    ) -> None:
        """Apply `rules`, create secrets in `secrets`, and forward wake-ups to `wake`."""
        self._rules = rules
        self._secrets = secrets
        self._resolver = resolver
        self._wake = wake

    async def check(self, callback_url: str) -> None:
        """See `Callbacks.check`. The result is not stored: every attempt checks again."""
        try:
            await self._resolver.resolve(read_callback_url(callback_url, self._rules))
        except RefusedUrl as refused:
            problem = refused.problem
        except Unresolvable:
            problem = "has a host whose name is not resolved"
        else:
            return
        raise InvalidRequest(Violation("callback_url", problem))

    async def prepare(self, owner: str) -> None:
        """See `Callbacks.prepare`."""
        await self._secrets.prepare(owner)

    def wake(self) -> None:
        """See `Callbacks.wake`."""
        self._wake()
