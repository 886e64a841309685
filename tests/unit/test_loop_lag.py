"""The measurement of the lag of the event loop."""

import asyncio
import time

import pytest

from milepost import telemetry
from milepost.main.loop_lag import measure_loop_lag
from tests.waiting import until

BLOCKED_S = 0.05


def observed(what):
    """Return the number or the sum of the observed lags."""
    return telemetry.registry.get_sample_value(f"milepost_event_loop_lag_seconds_{what}")


async def test_blocked_event_loop_is_late():
    """A callback that blocks the event loop shows as lag of about its length."""
    before, count = observed("sum"), observed("count")
    task = asyncio.create_task(measure_loop_lag(0.0))
    await until(lambda: observed("count") > count)
    end = time.monotonic() + BLOCKED_S
    while time.monotonic() < end:
        pass  # blocks the event loop, as a defect would
    count = observed("count")
    await until(lambda: observed("count") > count + 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert observed("sum") - before >= BLOCKED_S / 2
