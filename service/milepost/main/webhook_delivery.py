"""The delivery of webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from milepost import telemetry
from milepost.main.master_keys import master_keys
from milepost.tracking.signing_secrets import Secrets
from milepost.webhooks.attempts import DeliveryAttempts
from milepost.webhooks.callbacks import CheckedCallbacks
from milepost.webhooks.concurrency import ConcurrencyLimits
from milepost.webhooks.dispatcher import Dispatcher
from milepost.webhooks.guard import Resolver
from milepost.webhooks.sender import Sender
from milepost.webhooks.vault import Vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from milepost.config import Settings
    from milepost.storage.stores import Stores


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDelivery:
    """The parts that send webhooks. Without master keys it has no attempts and no callbacks."""

    secrets: Secrets
    attempts: DeliveryAttempts | None = None
    callbacks: CheckedCallbacks | None = None


@contextlib.asynccontextmanager
async def delivering_webhooks(
    settings: Settings, stores: Stores, tracing: telemetry.Tracing
) -> AsyncIterator[WebhookDelivery]:
    """Send due webhooks inside of the context; on exit, settle those in flight."""
    keys = await asyncio.to_thread(master_keys, settings)
    if keys is None:
        telemetry.log.warning("webhooks disabled", cause="no master keys are configured")
        yield WebhookDelivery(secrets=Secrets(stores.secrets, None))
        return
    rules, timeout = settings.callback_rules, timedelta(seconds=settings.webhook_timeout_seconds)
    limits = ConcurrencyLimits(
        total=settings.webhook_concurrency,
        per_host=settings.webhook_concurrency_per_host,
        timeout=timeout,
    )
    resolver = Resolver(rules)
    tls = await asyncio.to_thread(receiver_tls, settings.webhook_ca_file)
    sender = Sender(rules, resolver, tls=tls, total=timeout)
    sender.open()
    secrets = Secrets(stores.secrets, Vault(keys))
    attempts = DeliveryAttempts(sender, secrets, rules, settings.webhook_schedule)
    dispatcher = Dispatcher(stores.deliveries, attempts, limits, tracing)
    loop = asyncio.create_task(dispatcher.run())
    try:
        yield WebhookDelivery(
            secrets=secrets,
            attempts=attempts,
            callbacks=CheckedCallbacks(rules, resolver, secrets, dispatcher.wake),
        )
    finally:
        dispatcher.finish()
        await loop
        await dispatcher.stop()
        await sender.close()


def receiver_tls(authorities: Path | None) -> ssl.SSLContext:
    """Return the TLS of a client that trusts the roots of the system and these `authorities`."""
    context = ssl.create_default_context()
    if authorities is not None:
        context.load_verify_locations(authorities)
    return context
