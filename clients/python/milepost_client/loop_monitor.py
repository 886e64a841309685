"""A monitor of the event loop, which renews leases only while no function blocks it."""

import asyncio
import logging
from typing import Final

MAX_DELAY_SHARE: Final = 0.6
"""The share of a lease for which the loop may be blocked: renewals begin after a third of it."""
MAX_INTERVAL_S: Final = 1.0

log: Final = logging.getLogger("milepost_client.worker")


async def monitor_loop(lease_s: float) -> None:
    """Warn whenever the loop did not run for so long that leases may have been lost."""
    clock = asyncio.get_running_loop().time
    interval_s = min(MAX_INTERVAL_S, lease_s / 10)
    while True:
        due_time = clock() + interval_s
        await asyncio.sleep(interval_s)
        delay_s = clock() - due_time
        if delay_s > MAX_DELAY_SHARE * lease_s:
            log.warning(
                "the event loop was blocked for %.1f s, and no lease (%.1f s) could be renewed: "
                "operations may have gone to another worker. A coroutine function must not block: "
                "await instead, call asyncio.to_thread, or make it a plain function",
                delay_s,
                lease_s,
            )
