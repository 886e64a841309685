"""Changes for the subscribers: notifications of other replicas, and a poller."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from milepost.storage.notifications import Notifications
from milepost.tracking.poller import Poller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.engine import Engine

    from milepost.storage.store import SqlOperationStore
    from milepost.tracking.subscriptions import Subscriptions

POLL_INTERVAL_S: Final = 0.8
"""Interval of the poller. A change of another replica is seen within 1 s."""
EMBEDDED_POLL_INTERVAL_S: Final = 5.0
"""Interval on the embedded store. It has one replica, so only expirations are not published."""


@contextlib.asynccontextmanager
async def subscribed_to_notifications(
    subscriptions: Subscriptions, store: SqlOperationStore, engine: Engine
) -> AsyncIterator[None]:
    """Publish the changes of other replicas and of time to `subscriptions`."""
    embedded = engine.dialect.name == "sqlite"
    interval = EMBEDDED_POLL_INTERVAL_S if embedded else POLL_INTERVAL_S
    poller = Poller(store, subscriptions, interval=interval)
    polling = asyncio.create_task(poller.run())
    try:
        if embedded:
            yield
            return

        def lost() -> None:
            poller.look_now()
            subscriptions.publish_unseen()

        notifications = Notifications(engine, heard=subscriptions.hear, lost=lost)
        subscriptions.tell_others(notifications.tell)
        try:
            yield
        finally:
            await notifications.close()
    finally:
        polling.cancel()
