"""The use cases of webhooks: signing secrets, deliveries, redelivery and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from milepost.domain.pages import ITEM_BYTES, page_of, text_bytes
from milepost.domain.selection import Position

if TYPE_CHECKING:
    from milepost.domain.delivery import Delivery, DeliverySelection, Probe, SigningSecrets
    from milepost.domain.limits import Limits
    from milepost.domain.operation import Principal
    from milepost.domain.ports import Callbacks, DeliveryStore, Prober
    from milepost.tracking.page_tokens import PageTokens
    from milepost.tracking.signing_secrets import Secrets

ATTEMPT_BYTES: Final = 100
"""Upper bound of the bytes of an attempt in an answer, besides its error."""


class Webhooks:
    """The webhooks of callers. Every method also raises the errors of `DeliveryStore`."""

    def __init__(
        self,
        store: DeliveryStore,
        secrets: Secrets,
        *,
        limits: Limits,
        page_tokens: PageTokens,
        callbacks: Callbacks | None,
        prober: Prober | None,
    ) -> None:
        """Work on `store`. Without a `prober` and `callbacks` no webhooks are sent."""
        self._store = store
        self._secrets = secrets
        self._limits = limits
        self._page_tokens = page_tokens
        self._callbacks = callbacks
        self._prober = prober

    async def secrets(self, by: Principal) -> SigningSecrets:
        """Return the secrets that sign the webhooks of `by`.

        Raises:
            SigningSecretNotFound: `by` has no secret yet.
        """
        return await self._secrets.get(by.subject)

    async def rotate(self, by: Principal, request_id: str | None) -> SigningSecrets:
        """Create a secret of `by`; it replaces the current one."""
        return await self._secrets.rotate(by.subject, request_id)

    async def list(
        self, by: Principal, selection: DeliverySelection, *, page_size: int, page_token: str
    ) -> tuple[list[Delivery], str]:
        """Return one page, newest first, and the token of the next page; empty for the last."""
        after = None
        if page_token:
            after = self._page_tokens.read(page_token, subject=by.subject, selection=selection)
        limit = page_size or self._limits.page_size_default
        # One row more than the limit shows that a next page exists, without counting.
        found = await self._store.deliveries(by.subject, selection, after, limit + 1)
        page = page_of(found, limit, max_bytes=self._limits.answer_bytes, size=_delivery_bytes)
        if page.is_last:
            return page.items, ""
        last = page.items[-1]
        position = Position(create_time=last.create_time, id=last.id)
        token = self._page_tokens.issue(position, subject=by.subject, selection=selection)
        return page.items, token

    async def redeliver(
        self, by: Principal, delivery_id: str, request_id: str | None
    ) -> tuple[Delivery, bool]:
        """Queue a settled delivery of `by` again; the flag marks a replayed call."""
        self._secrets.require()
        delivery, replayed = await self._store.redeliver(by.subject, delivery_id, request_id)
        if self._callbacks is not None:
            self._callbacks.wake()
        return delivery, replayed

    async def probe(self, by: Principal, callback_url: str) -> Probe:
        """Send one test webhook to a URL at once.

        Raises:
            InvalidRequest: the URL is refused.
            SigningSecretNotFound: `by` has no secret yet.
            WebhooksNotConfigured: no master key is configured.
        """
        secrets = await self._secrets.get(by.subject)
        assert self._prober is not None, "a service with a master key has a prober"  # noqa: S101
        return await self._prober.probe(by.subject, callback_url, secrets.keys)


def _delivery_bytes(delivery: Delivery) -> int:
    texts = (delivery.callback_url, *(attempt.error for attempt in delivery.attempts))
    return ITEM_BYTES + ATTEMPT_BYTES * len(delivery.attempts) + text_bytes(texts)
