"""A dispatcher over a real outbox, without a service around it."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Self

from opentelemetry.sdk.trace import TracerProvider
from sqlalchemy import Engine

from milepost.domain.callback_url import CallbackRules
from milepost.storage.stores import Stores
from milepost.telemetry import Tracing
from milepost.tracking.signing_secrets import Secrets
from milepost.webhooks.attempts import DeliveryAttempts, Poster
from milepost.webhooks.dispatcher import Dispatcher, Room
from milepost.webhooks.hosts import Hosts
from milepost.webhooks.master_keys import new_key, read_keys
from milepost.webhooks.vault import Vault
from tests.outbox import count_by_status


class WebhookDelivery:
    """A dispatcher that runs, until left, and what it has done."""

    def __init__(
        self,
        engine: Engine,
        stores: Stores,
        poster: Poster,
        *,
        room: Room,
        rules: CallbackRules | None = None,
        hosts: Hosts | None = None,
        attempts: int = 1,
    ) -> None:
        """Send what is due in `stores`, without pauses between the attempts."""
        secrets = Secrets(stores.secrets, Vault(read_keys(new_key())))
        schedule = [timedelta(0)] * attempts
        made = DeliveryAttempts(poster, secrets, rules or CallbackRules(), schedule)
        self._engine = engine
        tracing = Tracing(TracerProvider(), 0.0)
        self.dispatcher = Dispatcher(stores.deliveries, made, room, tracing, hosts)

    async def __aenter__(self) -> Self:
        """It dispatches."""
        self._loop = asyncio.create_task(self.dispatcher.run())
        return self

    async def __aexit__(self, *_error: object) -> None:
        """What is being sent is settled."""
        self.dispatcher.finish()
        await self._loop
        await self.dispatcher.idle()

    def counts(self) -> Mapping[str, int]:
        """How many deliveries are in each status."""
        with self._engine.connect() as connection:
            return count_by_status(connection)
