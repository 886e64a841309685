"""Progress streams: many operations on one stream, acknowledged when committed.

Nothing here grows with what a worker sends: a stream carries a bounded number of operations, each
of them holds one pending update, and when the worker does not read what it is told, no more is
taken from it.
"""

from __future__ import annotations

import asyncio
import contextlib
from itertools import count
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.domain.errors import Draining, StreamFull, Unavailable
from milepost.domain.transitions import Preconditions
from milepost.tracking.reports import Acknowledgement, Item, Refused, Report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from milepost.domain.interruption import StatusSnapshot
    from milepost.domain.limits import Limits
    from milepost.domain.operation import OperationId, Principal
    from milepost.domain.ports import OperationStore
    from milepost.domain.transitions import TransitionResult
    from milepost.tracking.pending import PendingProgress
    from milepost.tracking.reports import Clock, Update
    from milepost.tracking.subscriptions import Subscriptions
    from milepost.tracking.tracker import Tracker

MOST_UNREAD: Final = 256
"""Items that wait for a worker to read them; with more of them nothing is taken from it."""
ROUND_S: Final = 0.25
"""Between two looks for operations of which nothing was heard."""
SILENCE_S: Final = 0.5
"""After so long without a sign an operation is looked at, in case another replica ended it."""
LOOK_SIZE: Final = 500
"""Operations that are looked at with one read."""
FAREWELL_S: Final = 2.0
"""How long a worker that does not read can hold up a replica that stops."""


class ProgressStream:
    """One stream of one worker. Fills `reports.Outlet`."""

    def __init__(self, house: ProgressStreams, by: Principal) -> None:
        """Begin without operations; everything is done in the name of `by`."""
        self._house = house
        self._by = by
        self.clock = house.clock
        self.interval = house.limits.stream_interval.total_seconds()
        self.ending = False
        self.coalesced = 0
        """Updates that were merged with others and are not shown in the metric yet."""
        self._received = 0
        self._draining = False
        self._reports: dict[OperationId, Report] = {}
        self._outbox: dict[object, Item] = {}
        self._numbers = count()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.patience = asyncio.timeout(None)
        """Ends the stream of a worker that does not read while the replica stops."""

    # --- what the worker says ---

    @property
    def is_full(self) -> bool:
        """Whether so much is unread that nothing more must be taken from the worker."""
        return len(self._outbox) >= MOST_UNREAD

    async def room(self) -> None:
        """Return when the worker has read enough for more to be taken from it."""
        await self._room.wait()

    def offer(self, update: Update) -> None:
        """Take an update: it is committed at once, or coalesced with those that follow."""
        self._received += 1
        if self.ending:
            return  # not acknowledged: the worker says it again, elsewhere
        report = self._reports.get(update.id)
        if report is None:
            most = self._house.limits.stream_operations
            if len(self._reports) >= most:
                self.refuse(update.id, StreamFull(max_operations=most))
                return
            report = self._reports[update.id] = Report(self, update.id)
            self._house.subscriptions.join(update.id, report)
        report.take(update)

    def refuse(self, operation_id: str, error: Exception) -> None:
        """Answer an update with an error; the stream goes on."""
        telemetry.update_refused()
        self.tell(Refused(id=operation_id, error=error))

    def finish(self) -> None:
        """The worker says no more: commit what is pending, answer it, and end."""
        self.ending = True
        for report in tuple(self._reports.values()):
            report.arrange()
        self._stir()

    def drain(self) -> None:
        """Finish, and tell the worker to go on elsewhere."""
        self._draining = True
        self.finish()
        if self.patience.when() is None:
            loop = asyncio.get_running_loop()
            self.patience.reschedule(loop.time() + FAREWELL_S)

    # --- what the worker is told ---

    async def next(self) -> Item | None:
        """Return what the worker must know next, or nothing when all is said.

        Raises:
            Draining: all is said, and the replica stops.
        """
        self.count()
        while not self._outbox:
            if self.ending and not any(report.busy for report in self._reports.values()):
                if self._draining:
                    raise Draining
                return None
            self._news.clear()
            await self._news.wait()
        item = self._outbox.pop(next(iter(self._outbox)))
        if not self.is_full:
            self._room.set()
        return item

    def tell(self, item: Item) -> None:
        """Let the worker know; of several acknowledgements of one operation the newest."""
        key = item.id if isinstance(item, Acknowledgement) else next(self._numbers)
        self._outbox.pop(key, None)
        self._outbox[key] = item
        if self.is_full:
            self._room.clear()
        self._stir()

    def _stir(self) -> None:
        self._news.set()

    # --- what its reports need ---

    async def commit(self, update: Update) -> TransitionResult:
        """See `Outlet.commit`."""
        return await self._house.tracker.update_progress(
            self._by,
            update.id,
            Preconditions(attempt=update.attempt),
            progress=update.progress,
            message=update.message,
        )

    async def status_snapshot(self, operation_id: OperationId) -> StatusSnapshot | None:
        """See `Outlet.status_snapshot`."""
        try:
            found = await self._house.store.status_snapshots([operation_id])
        except Unavailable:
            return None
        return found[0] if found else None

    def look(self, report: Report) -> None:
        """See `Outlet.look`."""
        self._house.look_soon(report)

    def hold(self, report: Report) -> None:
        """See `Outlet.hold`."""
        self._house.pending.hold(report.id, report)

    def release(self, report: Report) -> None:
        """See `Outlet.release`."""
        self._house.pending.release(report.id, report)

    def drop(self, report: Report) -> None:
        """See `Outlet.drop`."""
        report.close()
        if self._reports.get(report.id) is report:
            del self._reports[report.id]
        self._house.forget(report)
        self._stir()

    def count(self) -> None:
        """Show in the metrics what has come since: at once it would cost as much as to take it."""
        received, self._received = self._received, 0
        coalesced, self.coalesced = self.coalesced, 0
        telemetry.update_received(received)
        telemetry.update_coalesced(coalesced)

    def close(self) -> None:
        """Let go of everything."""
        self.count()
        for report in tuple(self._reports.values()):
            self.drop(report)

    def silent(self, since: float) -> Iterable[Report]:
        """Return the operations of which nothing was heard since then."""
        return (r for r in self._reports.values() if r.known and r.held_at <= since)


class ProgressStreams:
    """The progress streams of one replica. Create it on a running event loop."""

    def __init__(
        self,
        tracker: Tracker,
        store: OperationStore,
        *,
        subscriptions: Subscriptions,
        pending: PendingProgress,
        limits: Limits,
        clock: Clock | None = None,
    ) -> None:
        """Commit through `tracker`; learn of other moves from `subscriptions` and by looking."""
        self.tracker = tracker
        self.store = store
        self.subscriptions = subscriptions
        self.pending = pending
        self.limits = limits
        self.clock = clock or asyncio.get_running_loop()
        self._open: set[ProgressStream] = set()
        self._due: set[Report] = set()
        self._wanted = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        telemetry.progress_streams.set_function(lambda: len(self._open))

    @contextlib.asynccontextmanager
    async def open(self, by: Principal) -> AsyncIterator[ProgressStream]:
        """Open a stream for a worker.

        Raises:
            Draining: the replica stops, and the worker has not read to the end in time.
        """
        stream = ProgressStream(self, by)
        self._open.add(stream)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_around())
        try:
            async with stream.patience:
                yield stream
        except TimeoutError:
            if stream.patience.expired():
                raise Draining from None
            raise
        finally:
            stream.close()
            self._open.discard(stream)
            if not self._open and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    def drain(self) -> None:
        """Let every stream commit what it has, and end."""
        for stream in tuple(self._open):
            stream.drain()

    # --- what becomes of the operations ---

    def look_soon(self, report: Report) -> None:
        """Find out what has become of the operation, together with others."""
        self._due.add(report)
        self._wanted.set()

    def forget(self, report: Report) -> None:
        """The report is over."""
        self._due.discard(report)
        self.subscriptions.leave(report.id, report)
        self.pending.release(report.id, report)

    async def _look_around(self) -> None:
        """Look at what was moved at once, and now and then at what has been silent."""
        rounds = self.clock.time()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), ROUND_S)
            self._wanted.clear()
            if self.clock.time() >= rounds:
                rounds = self.clock.time() + ROUND_S
                self.find_silent()
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - no worker must go without news for it
                telemetry.record_failure(
                    "progress streams", error, expected=isinstance(error, Unavailable)
                )

    def find_silent(self) -> None:
        """Make everything due that nothing was heard of for `SILENCE_S`."""
        since = self.clock.time() - SILENCE_S
        for stream in self._open:
            stream.count()
            self._due.update(stream.silent(since))

    async def look(self) -> None:
        """Read how the operations stand that are due, many at a time, and tell their workers.

        Raises:
            StoreUnavailable, Overloaded: those that are silent are looked at again soon.
        """
        while self._due:
            reports = [self._due.pop() for _ in range(min(LOOK_SIZE, len(self._due)))]
            status_snapshots = await self.store.status_snapshots(
                list({report.id for report in reports})
            )
            by_id = {status_snapshot.id: status_snapshot for status_snapshot in status_snapshots}
            for report in reports:
                if report.known:
                    report.found(by_id.get(report.id))
