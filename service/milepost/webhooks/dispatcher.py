"""The dispatcher: takes what is due out of the outbox, and has it sent.

The loop and a pass of it are two functions. A pass claims as much as there is room for, and as
much again to be sent next, so that claims are few and nobody waits for them. Each claimed webhook
waits for its turn by itself: a slow receiver holds up nobody else. HTTP happens outside of any
transaction, between a short claim and a short settlement; a dispatcher that dies in between leaves
a lease that runs out.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.domain.delivery import DeliveryStatus
from milepost.domain.errors import MilepostError, Overloaded, Unavailable
from milepost.webhooks import webhook_metrics
from milepost.webhooks.hosts import Hosts

if TYPE_CHECKING:
    from milepost.domain.delivery import ClaimedDelivery, Settlement
    from milepost.domain.ports import DeliveryStore
    from milepost.webhooks.attempts import DeliveryAttempts

POLL_S: Final = 1.0
"""How long something due may wait when no hint came, as when another replica wrote it."""
PACE_S: Final = 0.005
"""While something is being sent: one claim fills all the room that became free meanwhile."""
SETTLE_TRIES: Final = 5
"""How often a settlement is tried while the store is away. After that the lease runs out."""
PAUSE_S: Final = 1.0
"""While the store is away."""
TIDY_S: Final = 60.0
KEPT: Final = timedelta(hours=24)
"""How long settled deliveries of operations that are gone are kept."""
_LEASE_MARGIN: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much is sent at once."""

    total: int = 64
    per_host: int = 8
    timeout: timedelta = timedelta(seconds=5)
    """Of one attempt; leases are long enough for it."""

    @property
    def claimed(self) -> int:
        """How much is claimed at once: what is sent, and what is sent next."""
        return 2 * self.total

    @property
    def patience(self) -> timedelta:
        """How long something claimed waits for its turn: as long as what runs may take."""
        return self.timeout + _LEASE_MARGIN

    @property
    def lease(self) -> timedelta:
        """How long a claim holds: wait, attempt, and settlement while the store is away a while."""
        return self.patience + self.timeout + timedelta(seconds=SETTLE_TRIES * PAUSE_S)


class Dispatcher:
    """Sends the webhooks of one replica's share. Create it on a running event loop."""

    def __init__(
        self,
        store: DeliveryStore,
        attempts: DeliveryAttempts,
        room: Room,
        tracing: telemetry.Tracing,
        hosts: Hosts | None = None,
    ) -> None:
        """Take from `store`, send through `attempts`, within `room`."""
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._attempts = attempts
        self._room = room
        self._tracing = tracing
        self._hosts = hosts or Hosts(self._loop.time, per_host=room.per_host)
        self._turns = asyncio.Semaphore(room.total)
        self._unsent = 0
        self._sending = 0
        webhook_metrics.running.set_function(lambda: self._sending)
        self._running: set[asyncio.Task[None]] = set()
        self._hint = asyncio.Event()
        self._finishing = False
        self._tidied = self._loop.time()

    def wake(self) -> None:
        """Look for something due soon: there may be."""
        self._hint.set()

    async def run(self) -> None:
        """Dispatch until `finish` is called."""
        away = False
        while not self._finishing:
            self._hint.clear()
            try:
                claimed = await self.dispatch()
                await self._tidy()
                away = False
            except MilepostError as error:
                if not away:
                    telemetry.log.warning("webhooks wait for the store", cause=error.reason)
                away = True
                await asyncio.sleep(PAUSE_S)
                continue
            if not claimed and not self._finishing:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hint.wait(), POLL_S)
            if self._running:
                await asyncio.sleep(PACE_S)

    async def dispatch(self) -> int:
        """Make one pass: claim what is due and there is room for; return how much that was."""
        free = self._room.claimed - self._unsent
        if free < self._room.total // 2:
            return 0  # there is enough to send: one claim later is cheaper than many now
        claimed = await self._store.claim(
            limit=free,
            per_host=self._room.per_host,
            busy=self._hosts.busy(),
            lease=self._room.lease,
        )
        for each in claimed:
            self._unsent += 1
            self._hosts.begin(each.host)
            task = self._loop.create_task(self._deliver(each, self._loop.time()))
            self._running.add(task)
            task.add_done_callback(self._done)
        return len(claimed)

    async def idle(self) -> None:
        """Return when every attempt that was begun is settled."""
        while self._running:
            await asyncio.wait(self._running)

    def finish(self) -> None:
        """Let `run` return after its present pass."""
        self._finishing = True
        self._hint.set()

    async def stop(self, seconds: float) -> None:
        """Give running attempts `seconds` to settle, then give them up: their leases run out."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            telemetry.log.error("webhook attempt broke", exc_info=error)

    async def _deliver(self, claimed: ClaimedDelivery, claimed_at: float) -> None:
        try:
            settlement = await self._send(claimed, claimed_at)
            if settlement is None:
                raise Overloaded
            held = await self._settle(settlement)
            webhook_metrics.record_attempt(claimed, settlement, held=held)
            if settlement.status is DeliveryStatus.PENDING:
                self._loop.call_later(settlement.delay.total_seconds(), self.wake)
        except Unavailable as error:
            telemetry.log.warning(
                "webhook left to its lease", delivery_id=claimed.id, cause=error.reason
            )

    async def _send(self, claimed: ClaimedDelivery, claimed_at: float) -> Settlement | None:
        """Make an attempt in its turn; nothing if it would outlive its lease by then."""
        failed = False
        try:
            async with self._hosts.turn(claimed.host), self._turns:
                if self._loop.time() - claimed_at > self._room.patience.total_seconds():
                    return None
                self._sending += 1
                try:
                    settlement = await self._attempt(claimed, claimed_at)
                finally:
                    self._sending -= 1
            # What the rules refuse, or nobody could sign, says nothing about the host.
            failed = settlement.attempt.error is not None and bool(settlement.attempt.duration)
            return settlement
        finally:
            self._unsent -= 1
            if self._hosts.end(claimed.host, failed=failed):
                telemetry.log.warning("host is left alone for a while", host=claimed.host)
            self._hint.set()  # there is room again

    async def _attempt(self, claimed: ClaimedDelivery, claimed_at: float) -> Settlement:
        # By the clock of the database, like every time that is stored.
        start_time = claimed.claim_time + timedelta(seconds=self._loop.time() - claimed_at)
        created = claimed.subject.trace_context if claimed.subject else None
        with self._tracing.joining(
            "webhook",
            created,
            {
                "milepost.operation.id": claimed.operation_id,
                "milepost.webhook.id": claimed.id,
                "milepost.webhook.attempt": claimed.number,
                "http.request.method": "POST",
                "server.address": claimed.host,
            },
        ) as (span, traceparent):
            settlement = await self._attempts.make(
                claimed, start_time=start_time, traceparent=traceparent
            )
            webhook_metrics.end_attempt(span, settlement)
        return settlement

    async def _settle(self, settlement: Settlement) -> bool:
        """Store what came of an attempt; tell whether the lease still held."""
        for _ in range(SETTLE_TRIES - 1):
            with contextlib.suppress(Unavailable):
                return await self._store.settle(settlement)
            await asyncio.sleep(PAUSE_S)
        return await self._store.settle(settlement)

    async def _tidy(self) -> None:
        """Now and then, remove what nobody can ask for any more."""
        if self._loop.time() - self._tidied < TIDY_S:
            return
        self._tidied = self._loop.time()
        await self._store.purge_deliveries(KEPT)
