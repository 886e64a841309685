"""``milepost cleanup``."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from milepost.domain.errors import StoreUnavailable
from milepost.main.database import DatabaseError, usable
from milepost.storage.batchers import Batchers
from milepost.storage.failures import NO_ANSWER
from milepost.storage.sweeps import SqlSweepStore
from milepost.storage.work import SqlWorkStore
from milepost.tracking.claimer import PendingWork
from milepost.tracking.subscriptions import Subscriptions
from milepost.tracking.sweeper import Sweeper

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from milepost.config import Settings
    from milepost.tracking.sweeper import Swept


def clean_up(settings: Settings, *, dry_run: bool) -> Swept:
    """Make one pass over the due operations; with `dry_run` only count them."""
    kept = timedelta(seconds=settings.events_kept_seconds)
    with usable(settings.database_url.get_secret_value()) as engine:
        return asyncio.run(_clean_up(engine, kept, dry_run=dry_run))


async def _clean_up(engine: Engine, events_kept: timedelta, *, dry_run: bool) -> Swept:
    batchers = Batchers(engine)
    try:
        sweeper = Sweeper(
            SqlSweepStore(batchers),
            subscriptions=Subscriptions(),
            work=PendingWork(SqlWorkStore(batchers)),
            event_retention=events_kept,
        )
        if dry_run:
            return await sweeper.preview()
        # Also for a service whose role may not change tables.
        await sweeper.keep_event_days()
        return await sweeper.clean_up()
    except StoreUnavailable as error:
        problem = batchers.health.failure or NO_ANSWER
        raise DatabaseError(f"database: {problem}", away=True) from error
    finally:
        await batchers.close()
