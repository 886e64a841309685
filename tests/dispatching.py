"""A dispatcher over a real outbox, without the rest of the service."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Self

from sqlalchemy import Engine

from milepost.domain.callback_url import CallbackRules
from milepost.storage.stores import Stores
from milepost.telemetry import Tracing
from milepost.tracking.signing_secrets import Secrets
from milepost.webhooks.attempts import DeliveryAttempts, Poster
from milepost.webhooks.circuit_breaker import CircuitBreaker
from milepost.webhooks.concurrency import ConcurrencyLimits
from milepost.webhooks.dispatcher import Dispatcher
from milepost.webhooks.master_keys import new_key, read_keys
from milepost.webhooks.vault import Vault
from tests.outbox import count_by_status


class WebhookDelivery:
    """A running dispatcher, and the deliveries that it has made."""

    def __init__(
        self,
        engine: Engine,
        stores: Stores,
        poster: Poster,
        *,
        limits: ConcurrencyLimits,
        rules: CallbackRules | None = None,
        breaker: CircuitBreaker | None = None,
        attempts: int = 1,
    ) -> None:
        """Send what is due in `stores`, without pauses between the attempts."""
        secrets = Secrets(stores.secrets, Vault(read_keys(new_key())))
        schedule = [timedelta(0)] * attempts
        made = DeliveryAttempts(poster, secrets, rules or CallbackRules(), schedule)
        self._engine = engine
        self.dispatcher = Dispatcher(stores.deliveries, made, limits, Tracing(), breaker)

    async def __aenter__(self) -> Self:
        """Start to dispatch."""
        self._loop = asyncio.create_task(self.dispatcher.run())
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Stop, and wait for the attempts in flight."""
        self.dispatcher.finish()
        await self._loop
        await self.dispatcher.idle()

    def counts(self) -> Mapping[str, int]:
        """The number of deliveries in each status."""
        with self._engine.connect() as connection:
            return count_by_status(connection)
