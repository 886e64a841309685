"""The use cases of webhooks: signing secrets, deliveries, redelivery and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.domain.selection import Position

if TYPE_CHECKING:
    from milepost.domain.delivery import Delivery, DeliverySelection, Probe, SigningSecrets
    from milepost.domain.limits import Limits
    from milepost.domain.operation import Principal
    from milepost.domain.ports import Callbacks, DeliveryStore, Prober
    from milepost.tracking.page_tokens import PageTokens
    from milepost.tracking.signing_secrets import Secrets


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
        page = found[:limit]
        if len(found) <= limit:
            return page, ""
        position = Position(create_time=page[-1].create_time, id=page[-1].id)
        return page, self._page_tokens.issue(position, subject=by.subject, selection=selection)

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
