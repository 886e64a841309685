"""The place of one process: whenever its process ends, another one starts."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from milepost import telemetry
from milepost.supervisor.replica import STARTING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from prometheus_client import Metric

    from milepost.supervisor.replica import Replica

MAX_PAUSE_S: Final = 30.0
"""Longest pause before a process is started again."""
FIRST_PAUSE_S: Final = 1.0
STABLE_S: Final = 60.0
"""Time after which a process that ended is started again at once."""
START_TIMEOUT_S: Final = 120.0
"""Time in which a process of a rolling restart must be ready."""


class Slot:
    """Keeps one process running."""

    def __init__(self, number: int, start: Callable[[int], Awaitable[Replica]]) -> None:
        """Prepare the slot; `start` starts a process with a number."""
        self.number = number
        self.replica: Replica | None = None
        """The process in charge."""
        self.restarts = 0
        """Processes that were started because another one had ended."""
        self._start = start
        self._changing = asyncio.Lock()

    @property
    def problem(self) -> str | None:
        """The reason why the process in charge is not ready, or None."""
        return STARTING if self.replica is None else self.replica.problem

    async def fill(self) -> Replica:
        """Start a process and put it in charge."""
        self.replica = await self._start(self.number)
        return self.replica

    async def keep(self) -> None:
        """Start another process whenever the one in charge has ended, until cancelled."""
        pause_s = 0.0
        while True:
            begun, replica = time.monotonic(), self.replica or await self.fill()
            await asyncio.wait([replica.end])
            if replica is not self.replica:  # a rolling restart has replaced it
                continue
            is_stable = time.monotonic() - begun >= STABLE_S
            pause_s = 0.0 if is_stable else min(pause_s * 2 or FIRST_PAUSE_S, MAX_PAUSE_S)
            log_end(replica, restart_s=pause_s)
            await asyncio.sleep(pause_s)
            async with self._changing:
                if replica is self.replica:
                    await self._refill()

    async def _refill(self) -> None:
        self.restarts += 1
        try:
            await self.fill()
        except OSError as error:  # the process that has ended stays in charge until the next try
            telemetry.log.error("process not started", process=self.number, problem=str(error))

    async def renew(self, grace_s: float) -> bool:
        """Put a new process in charge, once it is ready, and let the old one drain.

        If the new process does not become ready, the old one remains, and False is returned.

        Raises:
            OSError: no process could be started.
        """
        async with self._changing:
            old, new = self.replica, await self._start(self.number)
            is_ready = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(START_TIMEOUT_S):
                    is_ready = await new.is_ready_or_ended()
            if is_ready:
                self.replica = new
        retired = old if is_ready else new
        if retired is not None:
            await retired.stop(grace_s)
        return is_ready


def process_metrics(slots: Iterable[Slot]) -> list[Metric]:
    """Return the metrics of the processes themselves, by their numbers."""
    ready = GaugeMetricFamily(
        "milepost_process_ready", "1 while the process is ready, else 0", labels=["process"]
    )
    restarts = CounterMetricFamily(
        "milepost_process_restarts", "Restarts of a process that ended", labels=["process"]
    )
    for slot in slots:
        ready.add_metric([str(slot.number)], float(slot.problem is None))
        restarts.add_metric([str(slot.number)], slot.restarts)
    return [ready, restarts]


def log_end(replica: Replica, **facts: object) -> None:
    """Log the end of a process that the supervisor did not ask for."""
    code = replica.end.result()
    telemetry.log.warning(
        "process ended",
        process=replica.number,
        pid=replica.pid,
        exit_code=code if code >= 0 else None,
        signal=signal.Signals(-code).name if code < 0 else None,
        **facts,
    )
