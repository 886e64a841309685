"""A replica with progress streams over a fresh database, and with a clock of the test's own."""

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
from milepost.tracking.page_tokens import PageTokens
from milepost.tracking.pending import PendingProgress
from milepost.tracking.progress_streams import ProgressStream, ProgressStreams
from milepost.tracking.reports import Acknowledgement, Update
from milepost.tracking.subscriptions import Subscriptions
from milepost.tracking.tracker import Tracker
from tests.contract.stored import Stored

ALICE = Principal(subject="alice", roles=frozenset({Role.CALLER}), credential_id="a")
PROPOSAL = CreateRequest(function="video.transcode")
INTERVAL_S = 1.0
MOST = 300
SOON_S = 5.0


class Timer(asyncio.TimerHandle):
    """Something to be called when the test's clock comes to it."""


class Clock:
    """Time stands still until the test lets it go on."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._timers: list[Timer] = []

    def time(self) -> float:
        """Now."""
        return self._now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call back later."""
        timer = Timer(self._now + delay, callback, (), asyncio.get_running_loop())
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """So much later: what is due by then is called."""
        self._now += seconds
        due = [timer for timer in self._timers if timer.when() <= self._now]
        self._timers = [timer for timer in self._timers if timer not in due]
        for timer in due:
            timer._run()


class House:
    """A replica: its use cases and its progress streams, over a fresh database."""

    def __init__(self, url: str) -> None:
        self.batchers = Batchers(open_engine(url))
        self.stores = Stores(self.batchers)
        self.store = self.stores.operations
        self.stored = Stored(open_engine(url))
        self.clock = Clock()
        self.pending = PendingProgress()
        self.subscriptions = Subscriptions()
        self.tracker = self.another_replica(self.subscriptions, self.pending)
        self.streams = ProgressStreams(
            self.tracker,
            self.store,
            subscriptions=self.subscriptions,
            pending=self.pending,
            limits=Limits(stream_interval=timedelta(seconds=INTERVAL_S), stream_operations=MOST),
            clock=self.clock,
        )

    def another_replica(
        self, subscriptions: Subscriptions | None = None, pending: PendingProgress | None = None
    ) -> Tracker:
        """The use cases on the same store; the streams here learn nothing of them by themselves."""
        return Tracker(
            self.store,
            limits=Limits(),
            page_tokens=PageTokens(secrets.token_bytes(32)),
            subscriptions=subscriptions or Subscriptions(),
            work=PendingWork(self.stores.work),
            pending=pending,
            allowances=Allowances(default=Allowance(active=1_000)),
        )

    async def create(self) -> OperationId:
        """A new operation of Alice's."""
        return (await self.tracker.create(ALICE, PROPOSAL)).operation.id


async def told(stream: ProgressStream) -> Any:
    """What the worker is told next."""
    return await asyncio.wait_for(stream.next(), SOON_S)


@asynccontextmanager
async def reporting(house: House) -> AsyncIterator[tuple[ProgressStream, OperationId]]:
    """A stream with one operation, whose first update was acknowledged."""
    operation_id = await house.create()
    async with house.streams.open(ALICE) as stream:
        stream.offer(Update(id=operation_id, progress=0.1, message="begun"))
        first = await told(stream)
        assert isinstance(first, Acknowledgement)
        assert (first.id, first.revision, first.attempt) == (operation_id, 2, 1)
        yield stream, operation_id
