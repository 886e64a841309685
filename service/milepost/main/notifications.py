"""How listeners hear what happens: from other replicas, and by looking where nobody tells."""

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
"""How often watched operations are looked at: what another replica did is seen within 1 s."""
EMBEDDED_POLL_INTERVAL_S: Final = 5.0
"""The same where there is no other replica, and only the passing of time goes unannounced."""


@contextlib.asynccontextmanager
async def subscribed_to_notifications(
    subscriptions: Subscriptions, history: HistoryStore, engine: Engine
) -> AsyncIterator[None]:
    """Let listeners hear what happens: from other replicas, and by looking where nobody tells."""
    embedded = not database_of(engine).has_notifications
    interval = EMBEDDED_POLL_INTERVAL_S if embedded else POLL_INTERVAL_S
    poller = Poller(history, subscriptions, interval=interval)
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
