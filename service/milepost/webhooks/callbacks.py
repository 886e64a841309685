"""The check of a callback URL when a caller registers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.domain.callback_url import RefusedUrl, read_callback_url
from milepost.domain.errors import InvalidRequest, Violation
from milepost.webhooks.guard import Unresolvable

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.domain.callback_url import CallbackRules
    from milepost.webhooks.guard import Resolver


class CheckedCallbacks:
    """Fills the port `Callbacks`."""

    def __init__(self, rules: CallbackRules, resolver: Resolver, wake: Callable[[], None]) -> None:
        """Check URLs against `rules`; call `wake` when a webhook may be due."""
        self._rules = rules
        self._resolver = resolver
        self._wake = wake

    async def check(self, callback_url: str) -> None:
        """See `Callbacks.check`. Each attempt resolves the host again."""
        try:
            await self._resolver.resolve(read_callback_url(callback_url, self._rules))
        except RefusedUrl as refused:
            problem = refused.problem
        except Unresolvable:
            problem = "has a host whose name is not resolved"
        else:
            return
        raise InvalidRequest(Violation("callback_url", problem))

    def wake(self) -> None:
        """See `Callbacks.wake`."""
        self._wake()
