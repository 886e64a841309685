"""The lag of the event loop: how late it runs what is due."""

from __future__ import annotations

import asyncio
from typing import Final

from milepost import telemetry

INTERVAL_S: Final = 0.25
"""Interval of the samples."""


async def measure_loop_lag(interval_s: float = INTERVAL_S) -> None:
    """Observe, until cancelled, how much later than due the event loop wakes this task."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        telemetry.loop_lag.observe(max(0.0, loop.time() - due))
