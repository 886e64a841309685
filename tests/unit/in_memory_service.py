"""A replica with progress streams over a fresh database, and a clock that the test controls."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from milepost.domain.limits import Limits
from milepost.domain.operation import CreateRequest, OperationId, Principal, Role
from milepost.domain.rates import Allowance, Allowances
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.stores import Stores
from milepost.tracking.claimer import PendingWork
from milepost.tracking.committer import Committer
from milepost.tracking.page_tokens import PageTokens
from milepost.tracking.progress_messages import Acknowledgement, ProgressUpdate
from milepost.tracking.progress_stream import ProgressStream
from milepost.tracking.progress_streams import ProgressStreams
from milepost.tracking.subscriptions import Subscriptions
from milepost.tracking.tracker import PendingProgress, Tracker
from tests.contract.stored import Stored

ALICE = Principal(subject="alice", roles=frozenset({Role.CALLER}), credential_id="a")
CREATE_REQUEST = CreateRequest(function="video.transcode")
INTERVAL_S = 1.0
MAX_OPERATIONS = 300
SOON_S = 5.0


class Timer(asyncio.TimerHandle):
    """A timer that `Clock.advance` runs."""


class Clock:
    """A clock that stands still until the test advances it."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._timers: list[Timer] = []

    def time(self) -> float:
        """Return the current time."""
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` at the time `when`."""
        timer = Timer(when, callback, (), asyncio.get_running_loop())
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass and run the timers that are due."""
        self._now += seconds
        due = [timer for timer in self._timers if timer.when() <= self._now]
        self._timers = [timer for timer in self._timers if timer not in due]
        for timer in due:
            timer._run()


class Replica:
    """The use cases and the progress streams of one replica, over a fresh database."""

    def __init__(self, url: str) -> None:
        self.batchers = Batchers(open_engine(url))
        self.stores = Stores(self.batchers)
        self.store = self.stores.operations
        self.stored = Stored(open_engine(url))
        self.clock = Clock()
        self.subscriptions = Subscriptions()
        self.work = PendingWork(self.stores.work)
        self.streams = ProgressStreams(
            Committer(self.store, self.subscriptions, self.work),
            self.store,
            subscriptions=self.subscriptions,
            limits=Limits(
                stream_interval=timedelta(seconds=INTERVAL_S), stream_operations=MAX_OPERATIONS
            ),
            clock=self.clock,
        )
        self.pending_progress = self.streams.pending_progress
        self.tracker = self.another_tracker(self.subscriptions, self.pending_progress)

    def another_tracker(
        self,
        subscriptions: Subscriptions | None = None,
        pending_progress: PendingProgress | None = None,
    ) -> Tracker:
        """The tracker of another replica on the same store; it notifies no stream of this one."""
        return Tracker(
            self.store,
            Committer(self.store, subscriptions or Subscriptions(), self.work),
            limits=Limits(),
            page_tokens=PageTokens(secrets.token_bytes(32)),
            work=self.work,
            pending_progress=pending_progress,
            allowances=Allowances(default=Allowance(active=1_000)),
        )

    async def create(self) -> OperationId:
        """Create an operation of Alice."""
        return (await self.tracker.create(ALICE, CREATE_REQUEST)).operation.id


async def next_item(stream: ProgressStream) -> Any:
    """Return the next item for the worker."""
    return await asyncio.wait_for(stream.next(), SOON_S)


@asynccontextmanager
async def reporting(replica: Replica) -> AsyncIterator[tuple[ProgressStream, OperationId]]:
    """Open a stream with one operation, whose first update is acknowledged."""
    operation_id = await replica.create()
    async with replica.streams.open(ALICE) as stream:
        stream.offer(ProgressUpdate(id=operation_id, progress=0.1, message="begun"))
        first = await next_item(stream)
        assert isinstance(first, Acknowledgement)
        assert (first.id, first.revision, first.attempt) == (operation_id, 2, 1)
        yield stream, operation_id
