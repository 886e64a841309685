"""The dispatcher: claims due deliveries from the outbox and sends them.

The loop and a pass of it are two functions. A pass claims enough deliveries to fill all slots, and
as many to be sent next, so that claims are few and no slot waits for one. Each claimed delivery
waits for its slot by itself, so a slow receiver delays no other. HTTP happens outside of any
transaction, between a short claim and a short settlement. If a dispatcher dies in between, the
lease expires and another replica sends the webhook again.

A claim already keeps the limits of receivers: deliveries of one that is paused or has enough
claimed ones stay in the outbox, where they take no slot.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.domain.delivery import DeliveryClaim, DeliveryStatus
from milepost.domain.errors import MilepostError, Overloaded, Unavailable
from milepost.webhooks import metrics
from milepost.webhooks.circuit_breaker import CircuitBreaker, Contact
from milepost.webhooks.concurrency import ReceiverConcurrency
from milepost.webhooks.spans import attributes_of, end_attempt

if TYPE_CHECKING:
    from milepost.domain.delivery import ClaimedDelivery, Settlement
    from milepost.domain.ports import DeliveryStore
    from milepost.webhooks.attempts import DeliveryAttempts
    from milepost.webhooks.concurrency import ConcurrencyLimits

POLL_INTERVAL_S: Final = 1.0
"""Bound of the delay of a due delivery of which no notification came, as from another replica."""
MAX_CLAIM: Final = 128
"""Deliveries that one pass claims. Their snapshots, with results, are read at once."""
MIN_PASS_INTERVAL_S: Final = 0.005
"""Pause between two passes while attempts run, so that one claim fills several free slots."""
MAX_SETTLE_ATTEMPTS: Final = 5
"""Attempts to store a settlement while the store is unavailable. After them the lease expires."""
STORE_RETRY_INTERVAL_S: Final = 1.0
PURGE_INTERVAL_S: Final = 60.0
SETTLED_RETENTION: Final = timedelta(hours=24)
"""Time that settled deliveries are kept after their operation was deleted."""
SETTLE_TIME: Final = timedelta(seconds=MAX_SETTLE_ATTEMPTS * STORE_RETRY_INTERVAL_S)


class Dispatcher:
    """Sends the webhooks that one replica claims. Create it on a running event loop."""

    def __init__(
        self,
        store: DeliveryStore,
        attempts: DeliveryAttempts,
        limits: ConcurrencyLimits,
        tracing: telemetry.Tracing,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        """Claim from `store`, send through `attempts`, within `limits`."""
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._attempts = attempts
        self._limits = limits
        self._tracing = tracing
        self._breaker = breaker or CircuitBreaker(self._loop.time)
        self._hosts = ReceiverConcurrency(limits.per_host, 2 * limits.per_host)
        self._destinations = ReceiverConcurrency(limits.per_destination, limits.per_destination)
        self._trials = 0
        self._slots = asyncio.Semaphore(limits.total)
        self._lease = limits.lease(SETTLE_TIME)
        self._claimed = 0
        self._in_flight = 0
        metrics.running.set_function(lambda: self._in_flight)
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake_up = asyncio.Event()
        self._finishing = False
        self._purge_time = self._loop.time()

    def wake(self) -> None:
        """Make the next pass soon: a delivery may be due."""
        self._wake_up.set()

    async def run(self) -> None:
        """Make passes until `finish` is called."""
        store_available = True
        while not self._finishing:
            self._wake_up.clear()
            try:
                claimed = await self.dispatch()
                await self._purge()
                store_available = True
            except MilepostError as error:
                if store_available:
                    telemetry.log.warning("webhooks paused", cause=error.reason)
                store_available = False
                await asyncio.sleep(STORE_RETRY_INTERVAL_S)
                continue
            if not claimed and not self._finishing:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake_up.wait(), POLL_INTERVAL_S)
            if self._tasks:
                await asyncio.sleep(MIN_PASS_INTERVAL_S)

    async def dispatch(self) -> int:
        """Make one pass: claim due deliveries within the limits; return their number."""
        free = self._limits.max_claimed - self._claimed
        if free < self._limits.total // 2:
            return 0  # enough deliveries are queued: one claim later is cheaper than many now
        request = self._request(min(free, MAX_CLAIM))
        claimed = await self._store.claim(request)
        for each in claimed:
            on_trial = each.host in request.on_trial or each.destination in request.on_trial
            self._claimed += 1
            self._trials += on_trial
            self._hosts.add(each.host)
            self._destinations.add(each.destination)
            task = self._loop.create_task(self._deliver(each, self._loop.time()))
            self._tasks.add(task)
            task.add_done_callback(self._done)
            if on_trial:
                task.add_done_callback(self._end_trial)
        return len(claimed)

    def _request(self, limit: int) -> DeliveryClaim:
        """Return the next claim, which spares receivers that are full, paused or on trial."""
        busy = self._hosts.full() | self._destinations.full() | self._breaker.paused()
        trials = self._breaker.on_trial()
        room = self._limits.on_trial - self._trials
        if room <= 0:
            busy, trials = busy | trials, set()
        else:
            trying = trials & (self._hosts.claimed() | self._destinations.claimed())
            busy, trials = busy | trying, trials - trying
        return DeliveryClaim(
            limit=limit,
            per_host=self._limits.per_host,
            busy=busy,
            on_trial=trials,
            on_trial_limit=room,
            lease=self._lease,
        )

    async def idle(self) -> None:
        """Return when every claimed delivery is settled."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def finish(self) -> None:
        """Let `run` return after its current pass."""
        self._finishing = True
        self._wake_up.set()

    async def stop(self) -> None:
        """Wait for the claimed deliveries until their leases expire, then cancel the rest."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._lease.total_seconds())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _end_trial(self, _task: asyncio.Task[None]) -> None:
        self._trials -= 1

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            telemetry.log.error("webhook dispatch failed", exc_info=error)

    async def _deliver(self, claimed: ClaimedDelivery, claimed_at: float) -> None:
        try:
            settlement = await self._send(claimed, claimed_at)
            if settlement is None:
                raise Overloaded
            held = await self._settle(settlement)
            metrics.record_attempt(claimed, settlement, held=held)
            if settlement.status is DeliveryStatus.PENDING:
                self._loop.call_later(settlement.delay.total_seconds(), self.wake)
        except Unavailable as error:
            telemetry.log.warning("webhook not settled", delivery_id=claimed.id, cause=error.reason)

    async def _send(self, claimed: ClaimedDelivery, claimed_at: float) -> Settlement | None:
        """Make an attempt when there is a slot; return None if it could outlive its lease."""
        contact = Contact.NONE
        try:
            async with (
                self._destinations.slot(claimed.destination),
                self._hosts.slot(claimed.host),
                self._slots,
            ):
                if self._loop.time() - claimed_at > self._limits.max_wait.total_seconds():
                    return None
                self._in_flight += 1
                try:
                    settlement, contact = await self._attempt(claimed, claimed_at)
                finally:
                    self._in_flight -= 1
            return settlement
        finally:
            self._claimed -= 1
            self._hosts.remove(claimed.host)
            self._destinations.remove(claimed.destination)
            if self._breaker.record(claimed.host, claimed.destination, contact):
                every = contact is Contact.UNREACHABLE
                telemetry.log.warning(
                    "circuit breaker opened",
                    host=claimed.host,
                    owner=None if every else claimed.owner,
                )
            self._wake_up.set()  # a slot is free

    async def _attempt(
        self, claimed: ClaimedDelivery, claimed_at: float
    ) -> tuple[Settlement, Contact]:
        # By the clock of the database, like every time that is stored.
        start_time = claimed.claim_time + timedelta(seconds=self._loop.time() - claimed_at)
        created = claimed.snapshot.trace_context if claimed.snapshot else None
        with self._tracing.joining("POST", created, lambda: attributes_of(claimed)) as (
            span,
            traceparent,
        ):
            settlement, contact = await self._attempts.make(
                claimed, start_time=start_time, traceparent=traceparent
            )
            end_attempt(span, settlement)
        return settlement, contact

    async def _settle(self, settlement: Settlement) -> bool:
        """Store the result of an attempt; return False if the lease was lost."""
        for _ in range(MAX_SETTLE_ATTEMPTS - 1):
            with contextlib.suppress(Unavailable):
                return await self._store.settle(settlement)
            await asyncio.sleep(STORE_RETRY_INTERVAL_S)
        return await self._store.settle(settlement)

    async def _purge(self) -> None:
        """Remove settled deliveries that no caller can read any more, now and then."""
        if self._loop.time() - self._purge_time < PURGE_INTERVAL_S:
            return
        self._purge_time = self._loop.time()
        await self._store.purge_deliveries(SETTLED_RETENTION)
