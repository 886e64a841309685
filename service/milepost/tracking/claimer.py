"""Claims: workers wait for pending work and are notified when there is some.

A notification of work for a function goes to one waiting claim. A claim that finds work notifies
the next one, so that as many claims are woken as there is work, and one more. Creates and releases
of this replica notify at once. Work of other replicas, and work whose notification was lost, is
found by one poll of the database for all waiting claims every half second, and whenever delayed
work falls due that this replica knows of: it released the work, or the last poll found it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.domain.claim import ClaimRequest
from milepost.domain.errors import Draining, Overloaded, PermissionDenied
from milepost.domain.operation import Role
from milepost.domain.transitions import Transition, TransitionResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import timedelta

    from milepost.domain.limits import Limits
    from milepost.domain.operation import Operation, Principal
    from milepost.domain.ports import LeaseRegister, WorkStore
    from milepost.tracking.subscriptions import Subscriptions

POLL_INTERVAL_S: Final = 0.5
"""Time between two polls for work that was created on other replicas."""
MIN_POLL_INTERVAL_S: Final = 0.02
"""Shortest time between two polls, however much work falls due."""
MAX_WAITING_CLAIMS: Final = 1_000
"""Claims that may wait on one replica; more are refused at once."""
DEADLINE_MARGIN_S: Final = 0.25
"""Time before its deadline at which a claim is answered, so that the answer arrives in time."""


class Waiter:
    """A claim that waits for work of some functions."""

    __slots__ = ("_event", "functions")

    def __init__(self, functions: Sequence[str]) -> None:
        """Begin without a notification."""
        self.functions = frozenset(functions)
        self._event = asyncio.Event()

    @property
    def is_notified(self) -> bool:
        """Return whether there is a notification that `clear` has not consumed."""
        return self._event.is_set()

    def notify(self) -> None:
        """Let `wait` return."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Return at a notification, or after `seconds`."""
        # Before Python 3.12 wait_for may swallow a cancellation that comes with the notification.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()

    def clear(self) -> None:
        """Consume the notification, before the store is asked for work."""
        self._event.clear()


class PendingWork:
    """The waiting claims of this replica, the oldest first, and their notifications."""

    def __init__(self, store: WorkStore) -> None:
        """Begin without waiting claims; poll `store` for the work of other replicas."""
        self._store = store
        self._waiters: dict[Waiter, None] = {}
        self._next_poll = 0.0
        self._is_sooner = asyncio.Event()
        self.is_closed = False

    @contextlib.contextmanager
    def subscribed(self, functions: Sequence[str]) -> Iterator[Waiter]:
        """Wait for work of `functions` inside a ``with`` block.

        Raises:
            Overloaded: too many claims wait already.
        """
        if len(self._waiters) >= MAX_WAITING_CLAIMS:
            raise Overloaded
        waiter = Waiter(functions)
        self._waiters[waiter] = None
        try:
            yield waiter
        finally:
            del self._waiters[waiter]
            if waiter.is_notified:  # it leaves before it has asked for that work
                self.publish(*waiter.functions)

    def publish(self, *functions: str) -> None:
        """Notify one waiting claim for each function that has work."""
        for function in functions:
            for waiter in self._waiters:
                if function in waiter.functions and not waiter.is_notified:
                    waiter.notify()
                    break

    def publish_later(self, delay: timedelta) -> None:
        """Poll when delayed work falls due, unless the next poll comes before."""
        due = asyncio.get_running_loop().time() + max(delay.total_seconds(), MIN_POLL_INTERVAL_S)
        if due < self._next_poll:
            self._next_poll = due
            self._is_sooner.set()

    async def until_next_poll(self) -> None:
        """Return when the next poll is due."""
        loop = asyncio.get_running_loop()
        while (left := self._next_poll - loop.time()) > 0:
            self._is_sooner.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._is_sooner.wait()
        self._next_poll = loop.time() + POLL_INTERVAL_S

    def close(self) -> None:
        """End all waits."""
        self.is_closed = True
        for waiter in self._waiters:
            waiter.notify()

    async def poll(self) -> None:
        """Ask the store once for work of all functions with a waiting claim, if there is one."""
        functions = frozenset[str]().union(*(waiter.functions for waiter in self._waiters))
        if functions:
            due = await self._store.due(functions)
            self.publish(*due.functions)
            if due.next_due is not None:
                self.publish_later(due.next_due)


class Claimer:
    """Leases pending work to workers. Every method raises the errors of `WorkStore` too."""

    def __init__(
        self,
        store: WorkStore,
        *,
        limits: Limits,
        subscriptions: Subscriptions,
        work: PendingWork,
        leases: LeaseRegister | None = None,
    ) -> None:
        """Claim from `store`.

        Args:
            store: holds the pending work.
            limits: clamp the lease and the wait.
            subscriptions: are notified of claimed operations.
            work: notifies waiting claims.
            leases: records the leases; None if nothing depends on them.
        """
        self._store = store
        self._leases = leases
        self._limits = limits
        self._subscriptions = subscriptions
        self._work = work

    async def claim(
        self,
        by: Principal,
        functions: tuple[str, ...],
        *,
        max_operations: int = 1,
        lease: timedelta | None = None,
        worker: str | None = None,
        timeout: timedelta | None = None,  # noqa: ASYNC109 - how long to wait for work, not for the answer
        time_left: float | None = None,
    ) -> list[Operation]:
        """Lease operations to `by` as soon as there are any; return none at the timeout.

        Args:
            by: a worker that is granted all functions.
            functions: names of the functions.
            max_operations: the number of operations to lease, at least 1.
            lease: duration of the lease; clamped.
            worker: name of the worker, if it has one.
            timeout: longest wait, at most the limit, which is also the default.
            time_left: seconds until the deadline of the call.

        Raises:
            PermissionDenied: `by` is not granted one of the functions.
            Overloaded: too many claims wait already.
            Draining: this replica stops.
        """
        for function in functions:
            if not by.may_work_on(function):
                raise PermissionDenied(role=Role.WORKER, function=function)
        request = ClaimRequest(
            functions=functions,
            max_operations=max_operations,
            lease=self._limits.lease(lease),
            actor=by.subject,
            worker=worker or by.subject,
        )
        claimed = await self._wait_and_claim(request, self._deadline(timeout, time_left))
        self._record(by, claimed)
        return claimed

    def _deadline(self, timeout: timedelta | None, time_left: float | None) -> float:
        wait = self._limits.claim_wait if timeout is None else min(timeout, self._limits.claim_wait)
        seconds = wait.total_seconds()
        if time_left is not None:
            seconds = min(seconds, time_left - DEADLINE_MARGIN_S)
        return asyncio.get_running_loop().time() + seconds

    async def _wait_and_claim(self, request: ClaimRequest, deadline: float) -> list[Operation]:
        """Claim operations as soon as there are any; return none at the deadline."""
        loop = asyncio.get_running_loop()
        with self._work.subscribed(request.functions) as waiter:
            while True:
                waiter.clear()
                claimed = await self._store.claim(request)
                left = deadline - loop.time()
                if claimed or left <= 0:
                    break
                if self._work.is_closed:
                    raise Draining
                await waiter.wait(left)
        # There may be more work of these functions for the next waiting claim.
        self._work.publish(*{operation.function for operation in claimed})
        return claimed

    def _record(self, by: Principal, claimed: Iterable[Operation]) -> None:
        for operation in claimed:
            self._subscriptions.publish(operation.id)
            telemetry.record_transition(Transition.CLAIM, TransitionResult(operation), by)
            if self._leases is not None:
                self._leases.record(by.subject, operation)
