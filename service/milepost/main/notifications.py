"""Sources of notifications: the other replicas, and polls of the database."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from milepost.storage.engine import database_of
from milepost.storage.notifications import Notifications
from milepost.tracking.poller import Poller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.engine import Engine

    from milepost.domain.ports import HistoryStore
    from milepost.tracking.subscriptions import Subscriptions

POLL_INTERVAL_S: Final = 0.8
"""Time between two polls: a change on another replica is seen within 1 s."""
EMBEDDED_POLL_INTERVAL_S: Final = 5.0
"""The same without other replicas, where only an expiry is not announced."""


@contextlib.asynccontextmanager
async def subscribed_to_notifications(
    subscriptions: Subscriptions, history: HistoryStore, engine: Engine
) -> AsyncIterator[None]:
    """Notify subscribers of changes on other replicas, and poll for those not announced."""
    embedded = not database_of(engine).has_notifications
    interval = EMBEDDED_POLL_INTERVAL_S if embedded else POLL_INTERVAL_S
    poller = Poller(history, subscriptions, interval=interval)
    polling = asyncio.create_task(poller.run())
    try:
        if embedded:
            yield
            return

        def on_gap() -> None:
            subscriptions.are_complete = True
            poller.poll_now()
            subscriptions.notify_unpolled()

        def on_interruption() -> None:
            subscriptions.are_complete = False

        on_interruption()  # until it is connected
        notifications = Notifications(
            engine,
            on_notification=subscriptions.deliver,
            on_gap=on_gap,
            on_interruption=on_interruption,
        )
        subscriptions.forward_to(notifications.notify)
        try:
            yield
        finally:
            await notifications.close()
    finally:
        polling.cancel()
