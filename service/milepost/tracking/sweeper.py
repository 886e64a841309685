"""The sweeper: ends lost leases, and fails or purges operations past their expire time.

Every replica sweeps, and none needs to be chosen for it: batches are shared through the database.
A pass works in batches until nothing is due or its time is spent. The loops around the passes are
in ``main/periodic_tasks.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.domain.sweep import EXPIRE, PURGE, SWEEPS, Sweep
from milepost.domain.transitions import CLAIMABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from milepost.domain.event_days import EventDays
    from milepost.domain.operation import Operation
    from milepost.domain.ports import SweepStore
    from milepost.tracking.claimer import PendingWork
    from milepost.tracking.subscriptions import Subscriptions

BATCH: Final = 100
"""Operations of one transaction at most. Calls wait for the processor behind larger ones."""
BUDGET: Final = timedelta(seconds=15)
"""How long one pass may take."""
EVENT_RETENTION: Final = timedelta(days=7)
MAX_OVERDUE: Final = 10_000
"""Operations that are counted as overdue; to count more would only cost time."""
PURGE_GRACE: Final = timedelta(minutes=5)
"""Time after which an expired operation that is not purged is overdue; it is invisible before."""

_CLEANUP: Final = (EXPIRE, PURGE)
_SOON: Final = tuple(sweep for sweep in SWEEPS if sweep is not PURGE)
"""Sweeps for which workers and owners wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """Result of one pass, or of its preview."""

    counts: Mapping[Sweep, int]
    """Operations of each sweep."""
    more: bool = False
    """True if the time budget ended before a batch was empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgedEvents:
    """Result of one pass over the events of purged operations."""

    operations: int
    """Operations whose events were removed."""
    more: bool = False
    """True if the time budget ended before a batch was empty."""


class Sweeper:
    """Makes the transitions that are due, and purges old events."""

    def __init__(
        self,
        store: SweepStore,
        *,
        subscriptions: Subscriptions,
        work: PendingWork,
        event_retention: timedelta = EVENT_RETENTION,
        budget: timedelta = BUDGET,
        tracing: telemetry.Tracing | None = None,
    ) -> None:
        """Sweep `store`; notify `subscriptions` of every transition and `work` of every release.

        With `tracing`, each pass that found something to do has a span, and so has each transition
        in the trace in which its operation was created.
        """
        self._store = store
        self._subscriptions = subscriptions
        self._work = work
        self._event_retention = event_retention
        self._may_keep_days = True
        self._budget = budget.total_seconds()
        self._tracing = tracing or telemetry.Tracing()

    async def sweep_leases(self) -> Swept:
        """End what is out of time: attempts without a lease, graces, queue and run timeouts."""
        return await self._pass("leases", _SOON)

    async def note_serving(self) -> None:
        """Store that this replica takes renewals. Without it, no lease is swept."""
        interruption = await self._store.note_serving()
        if interruption is not None:
            telemetry.record_interruption(interruption)

    async def clean_up(self) -> Swept:
        """Fail the expired operations that are processing, and purge the other expired ones."""
        return await self._pass("cleanup", _CLEANUP)

    async def purge_events(self) -> PurgedEvents:
        """Remove the events of operations purged long ago."""
        end, total = self._end(), 0
        with self._tracing.working() as work:
            while True:
                begun = time.time_ns()
                purged = await self._store.purge_events(self._event_retention, BATCH)
                if purged:
                    work.begin("sweep events", begun)
                total += purged
                more = purged > 0
                if not more or asyncio.get_running_loop().time() >= end:
                    telemetry.record_purged_events(total, more=more)
                    work.end({"milepost.sweep.operations": total, "milepost.sweep.more": more})
                    return PurgedEvents(operations=total, more=more)

    async def keep_event_days(self) -> EventDays:
        """Make the days of the next events, and drop those whose retention is over."""
        days = await self._store.keep_event_days(self._event_retention)
        telemetry.record_event_days(days, is_new=days.is_permitted != self._may_keep_days)
        self._may_keep_days = days.is_permitted
        return days

    async def preview(self) -> Swept:
        """Return what `clean_up` would do now. Changes nothing."""
        return Swept(counts={sweep: await self._store.due(sweep) for sweep in _CLEANUP})

    async def measure(self) -> Mapping[Sweep, int]:
        """Return the number of operations for which each sweep is overdue."""
        overdue = {
            sweep: await self._store.overdue(
                sweep, PURGE_GRACE if sweep is PURGE else timedelta(), MAX_OVERDUE
            )
            for sweep in SWEEPS
        }
        telemetry.record_overdue(overdue, spared=await self._store.spared(MAX_OVERDUE))
        return overdue

    async def _pass(self, name: str, sweeps: tuple[Sweep, ...]) -> Swept:
        end = self._end()
        counts = Counter[Sweep]()
        more = False
        with self._tracing.working() as work:
            for sweep in sweeps:
                counts[sweep], unfinished = await self._all_due(name, sweep, work, end)
                more = more or unfinished
            telemetry.record_pass(name, counts, more=more)
            found = {f"milepost.sweep.{sweep.name}": counts[sweep] for sweep in sweeps}
            work.end({**found, "milepost.sweep.more": more})
        return Swept(counts=counts, more=more)

    async def _all_due(
        self, name: str, sweep: Sweep, work: telemetry.Trace, end: float
    ) -> tuple[int, bool]:
        """Sweep wherever it is due; return how often, and True if time ran out."""
        total = 0
        while True:
            begun = time.time_ns()
            swept = await self._store.sweep(sweep, BATCH)
            total += len(swept)
            if swept:
                work.begin(f"sweep {name}", begun)
            self._announce(sweep, swept, begun)
            if not swept:
                return total, False
            if asyncio.get_running_loop().time() >= end:
                return total, True

    def _announce(self, sweep: Sweep, swept: list[Operation], begun: int) -> None:
        for operation in swept:
            self._subscriptions.publish(operation.id)
            if operation.status in CLAIMABLE and sweep is not PURGE:
                self._work.add(operation)
        telemetry.record_sweep(sweep, swept, begun=begun)

    def _end(self) -> float:
        return asyncio.get_running_loop().time() + self._budget
