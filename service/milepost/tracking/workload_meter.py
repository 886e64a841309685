"""The workload of the database, measured for the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from milepost import telemetry

if TYPE_CHECKING:
    from milepost.domain.ports import WorkloadStore

MAX_FUNCTIONS: Final = telemetry.MAX_FUNCTIONS
"""Functions that are measured, the first by name."""
MAX_COUNTED: Final = 50_000
"""Operations of each status that are counted; to count more would only cost time."""


class WorkloadMeter:
    """Measures the workload. Every replica shows the same figures: those of one are enough."""

    def __init__(self, store: WorkloadStore) -> None:
        """Measure `store`."""
        self._store = store
        self._gauges = telemetry.WorkloadGauges()

    async def measure(self) -> None:
        """Measure once, and set the gauges."""
        self._gauges.show(await self._store.workload(MAX_FUNCTIONS, MAX_COUNTED))
