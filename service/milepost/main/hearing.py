"""How listeners hear what happens: from other replicas, and by looking where nobody tells."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from milepost.storage.hints import Hints
from milepost.tracking.polling import Poller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.engine import Engine

    from milepost.storage.store import SqlOperationStore
    from milepost.tracking.changes import Changes

POLL_INTERVAL_S: Final = 0.8
"""How often watched operations are looked at: what another replica did is seen within 1 s."""
EMBEDDED_POLL_INTERVAL_S: Final = 5.0
"""The same where there is no other replica, and only the passing of time goes unannounced."""


@contextlib.asynccontextmanager
async def heeded(changes: Changes, store: SqlOperationStore, engine: Engine) -> AsyncIterator[None]:
    """Let listeners hear what happens: from other replicas, and by looking where nobody tells."""
    embedded = engine.dialect.name == "sqlite"
    interval = EMBEDDED_POLL_INTERVAL_S if embedded else POLL_INTERVAL_S
    poller = Poller(store, changes, interval=interval)
    polling = asyncio.create_task(poller.run())
    try:
        if embedded:
            yield
            return

        def lost() -> None:
            poller.look_now()
            changes.publish_unseen()

        hints = Hints(engine, heard=changes.hear, lost=lost)
        changes.tell_others(hints.tell)
        try:
            yield
        finally:
            await hints.close()
    finally:
        polling.cancel()
