"""What sends webhooks, and the master keys without which nothing is sent."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from milepost import telemetry
from milepost.config import SettingsError
from milepost.main.embedded import sqlite_path
from milepost.tracking.signing_secrets import Secrets
from milepost.webhooks.attempts import DeliveryAttempts
from milepost.webhooks.callbacks import CheckedCallbacks
from milepost.webhooks.dispatcher import Dispatcher, Room
from milepost.webhooks.guard import Resolver
from milepost.webhooks.master_keys import key_beside, read_keys
from milepost.webhooks.sender import Sender
from milepost.webhooks.vault import Vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from milepost.config import Settings
    from milepost.storage.stores import Stores


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDelivery:
    """What sends webhooks; without master keys there is nothing to sign them with."""

    secrets: Secrets
    attempts: DeliveryAttempts | None = None
    callbacks: CheckedCallbacks | None = None


@contextlib.asynccontextmanager
async def delivering_webhooks(
    settings: Settings, stores: Stores, tracing: telemetry.Tracing
) -> AsyncIterator[WebhookDelivery]:
    """Send what is due until left; what is being sent then is settled first."""
    keys = await asyncio.to_thread(master_keys, settings)
    if keys is None:
        telemetry.log.warning("webhooks are off", cause="there are no master keys")
        yield WebhookDelivery(secrets=Secrets(stores.secrets, None))
        return
    rules, timeout = settings.callback_rules, timedelta(seconds=settings.webhook_timeout_seconds)
    room = Room(
        total=settings.webhook_concurrency,
        per_host=settings.webhook_concurrency_per_host,
        timeout=timeout,
    )
    resolver = Resolver(rules)
    sender = Sender(rules, resolver, total=timeout)
    secrets = Secrets(stores.secrets, Vault(keys))
    attempts = DeliveryAttempts(sender, secrets, rules, settings.webhook_schedule)
    dispatcher = Dispatcher(stores.deliveries, attempts, room, tracing)
    loop = asyncio.create_task(dispatcher.run())
    try:
        yield WebhookDelivery(
            secrets=secrets,
            attempts=attempts,
            callbacks=CheckedCallbacks(rules, resolver, dispatcher.wake),
        )
    finally:
        dispatcher.finish()
        await loop
        await dispatcher.stop(room.lease.total_seconds())
        await sender.close()


def master_keys(settings: Settings) -> dict[str, bytes] | None:
    """Return the keys that signing secrets are encrypted with, the current one first, if any.

    The embedded store has one of its own beside it, unless the operator gives others.

    Raises:
        SettingsError: there is a file of keys that cannot be used.
    """
    if settings.webhook_keys is not None:
        return read_keys(settings.webhook_keys.get_secret_value())
    path = settings.webhook_keys_file
    try:
        if path is not None:
            return read_keys(path.read_text(encoding="ascii"))
        if settings.embedded:
            database = sqlite_path(settings.database_url.get_secret_value())
            path = database.with_suffix(".webhook-keys")
            return key_beside(path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError([f"MILEPOST_WEBHOOK_KEYS_FILE: {path}: {why}"]) from None
    return None
