"""The periodic tasks of a replica."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry
from milepost.domain.errors import Unavailable
from milepost.main.loop_lag import measure_loop_lag
from milepost.tracking.claimer import POLL_INTERVAL_S
from milepost.tracking.sweeper import PurgedEvents, Swept

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from milepost.config import Settings
    from milepost.tracking.claimer import PendingWork
    from milepost.tracking.keys import Keys
    from milepost.tracking.sweeper import Sweeper
    from milepost.tracking.waiting_work import WaitingWork
    from milepost.tracking.workload_meter import WorkloadMeter

SERVING_INTERVAL_S: Final = 1.0
"""Interval at which a replica stores that it takes renewals of leases."""
KEY_USE_INTERVAL_S: Final = 5.0
"""Interval at which the last use of API keys is written."""

EVENT_DAYS_INTERVAL_S: Final = 600.0
"""Interval at which a replica makes and drops partitions of events; a failed try is repeated."""


@contextlib.asynccontextmanager
async def background(
    settings: Settings,
    *,
    work: PendingWork,
    waiting: WaitingWork,
    sweeper: Sweeper,
    keys: Keys,
    meter: WorkloadMeter,
) -> AsyncIterator[None]:
    """Run the periodic tasks of this replica inside of the context."""
    periodic: tuple[tuple[str, Callable[[], Awaitable[Any]], float], ...] = (
        ("poll for work", work.poll, POLL_INTERVAL_S),
        ("sweep leases", sweeper.sweep_leases, settings.lease_sweep_seconds),
        ("clean up", sweeper.clean_up, settings.cleanup_seconds),
        ("purge events", sweeper.purge_events, settings.cleanup_seconds),
        ("measure", sweeper.measure, settings.measure_seconds),
        ("measure workload", meter.measure, settings.measure_seconds),
        ("note key use", keys.write_uses, KEY_USE_INTERVAL_S),
    )
    tasks = [asyncio.create_task(run_periodically(*each)) for each in periodic]
    tasks.append(
        asyncio.create_task(
            run_periodically(
                "keep event days", sweeper.keep_event_days, EVENT_DAYS_INTERVAL_S, at_once=True
            )
        )
    )
    tasks.append(asyncio.create_task(waiting.run()))
    tasks.append(asyncio.create_task(measure_loop_lag()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def run_periodically(
    task: str, once: Callable[[], Awaitable[Any]], seconds: float, *, at_once: bool = False
) -> None:
    """Call `once` every so many seconds until cancelled, and again at once if it left work over.

    A failure is logged; while the database is away, only the first one.
    """
    is_away = False
    await asyncio.sleep(0 if at_once else seconds)
    while True:
        pause = seconds
        try:
            if _left_over(await once()):
                pause = 0
            is_away = False
        except Exception as error:  # noqa: BLE001 - the next run may succeed
            expected = isinstance(error, Unavailable)
            telemetry.record_failure(
                task, error, expected=expected, is_repeated=expected and is_away
            )
            is_away = expected
        await asyncio.sleep(pause)


def _left_over(result: object) -> bool:
    """Return True for the result of a pass whose time ended before its work did."""
    return isinstance(result, Swept | PurgedEvents) and result.more
