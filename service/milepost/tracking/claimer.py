"""Claims: workers wait for pending work and are notified when there is some.

A notification of work for a function goes to one waiting claim. A claim that finds work notifies
the next one, so that as many claims are woken as there is work, and one more. Creates and releases
of this replica notify at once. Work of other replicas, and work whose notification was lost, is
found by one poll of the database for all waiting claims every half second.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING, Final

from milepost.domain.claim import ClaimRequest
from milepost.domain.errors import Draining, MilepostError, Overloaded, PermissionDenied
from milepost.domain.operation import Role
from milepost.domain.transitions import Preconditions, Transition, TransitionResult
from milepost.tracking.committer import transition_request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import timedelta

    from milepost.domain.limits import Limits
    from milepost.domain.operation import Operation, Principal
    from milepost.domain.ports import WorkStore
    from milepost.tracking.committer import Committer

POLL_INTERVAL_S: Final = 0.5
"""Time between two polls for work that was created on other replicas."""
MAX_WAITING_CLAIMS: Final = 1_000
"""Claims that may wait on one replica; more are refused at once."""
ABANDONED: Final = "the caller of the claim has gone"
"""The reason of a release, for people."""
DEADLINE_MARGIN_S: Final = 0.25
"""Time before its deadline at which a claim is answered, so that the answer arrives in time."""


class Waiter:
    """A claim that waits for work of some functions."""

    __slots__ = ("_event", "_notified", "functions")

    def __init__(self, functions: Sequence[str]) -> None:
        """Begin without a notification."""
        self.functions = functions
        self._event = asyncio.Event()
        self._notified: list[str] = []

    @property
    def is_notified(self) -> bool:
        """Return whether there is a notification that `consume` has not returned."""
        return self._event.is_set()

    def notify(self, *functions: str) -> None:
        """Let `wait` return, because there is work of these functions."""
        self._notified += functions
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Return at a notification, or after `seconds`."""
        # Before Python 3.12 wait_for may swallow a cancellation that comes with the notification.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()

    def consume(self) -> Sequence[str]:
        """Return the functions of the notification, before the store is asked for their work."""
        functions, self._notified = self._notified, []
        self._event.clear()
        return functions


class PendingWork:
    """The waiting claims of this replica, the oldest first, and their notifications."""

    def __init__(self, store: WorkStore) -> None:
        """Begin without waiting claims; poll `store` for the work of other replicas."""
        self._store = store
        self._waiters: set[Waiter] = set()
        self._by_function: dict[str, dict[Waiter, None]] = {}
        self.is_closed = False
        self.has_waiting = asyncio.Event()
        """Set when this replica leaves an operation that becomes claimable at a later time."""

    @contextlib.contextmanager
    def subscribed(self, functions: Sequence[str]) -> Iterator[Waiter]:
        """Wait for work of `functions` inside a ``with`` block.

        Raises:
            Overloaded: too many claims wait already.
        """
        if len(self._waiters) >= MAX_WAITING_CLAIMS:
            raise Overloaded
        waiter = Waiter(functions)
        self._waiters.add(waiter)
        for function in functions:
            self._by_function.setdefault(function, {})[waiter] = None
        try:
            yield waiter
        finally:
            self._remove(waiter)
            self.publish(*waiter.consume())  # it leaves before it has asked for that work

    def _remove(self, waiter: Waiter) -> None:
        self._waiters.discard(waiter)
        for function in waiter.functions:
            others = self._by_function[function]
            del others[waiter]
            if not others:
                del self._by_function[function]

    def add(self, operation: Operation) -> None:
        """Take an operation that is pending now: notify a claim, or let it wait for its time."""
        if operation.next_attempt_time is None:
            self.publish(operation.function)
        else:
            self.has_waiting.set()

    def publish(self, *functions: str) -> None:
        """Notify one waiting claim for each function that has work."""
        for function in functions:
            for waiter in self._by_function.get(function, ()):
                if not waiter.is_notified:
                    waiter.notify(function)
                    break

    def close(self) -> None:
        """End all waits."""
        self.is_closed = True
        for waiter in self._waiters:
            waiter.notify()

    async def poll(self) -> None:
        """Ask the store once for work of all functions with a waiting claim, if there is one."""
        if self._by_function:
            self.publish(*await self._store.pending(list(self._by_function)))


class Claimer:
    """Leases pending work to workers. Every method raises the errors of `WorkStore` too."""

    def __init__(
        self,
        store: WorkStore,
        committer: Committer,
        *,
        limits: Limits,
        work: PendingWork,
    ) -> None:
        """Claim from `store`.

        Args:
            store: holds the pending work.
            committer: announces claims, and releases operations whose callers have gone.
            limits: clamp the lease and the wait.
            work: notifies waiting claims.
        """
        self._store = store
        self._limits = limits
        self._work = work
        self._committer = committer
        self._releases: set[asyncio.Task[None]] = set()

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

        Operations that are claimed for a caller that has gone are released at once.

        Args:
            by: a worker that is granted all functions.
            functions: names of the functions.
            max_operations: the maximum number of operations to lease, at least 1. Fewer are leased
                if their answer would exceed the limit of its size.
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
            max_bytes=self._limits.answer_bytes,
            lease=self._limits.lease(lease),
            actor=by.subject,
            worker=worker or by.subject,
        )
        return await self._wait_and_claim(by, request, self._deadline(timeout, time_left))

    def _deadline(self, timeout: timedelta | None, time_left: float | None) -> float:
        wait = self._limits.claim_wait if timeout is None else min(timeout, self._limits.claim_wait)
        seconds = wait.total_seconds()
        if time_left is not None:
            seconds = min(seconds, time_left - DEADLINE_MARGIN_S)
        return asyncio.get_running_loop().time() + seconds

    async def _wait_and_claim(
        self, by: Principal, request: ClaimRequest, deadline: float
    ) -> list[Operation]:
        """Claim operations as soon as there are any; return none at the deadline."""
        loop = asyncio.get_running_loop()
        with self._work.subscribed(request.functions) as waiter:
            while True:
                notified, begun = waiter.consume(), time.time_ns()
                give_back = functools.partial(self._give_back, by, begun)
                claimed = await self._store.claim(request, give_back)
                self._announce(by, begun, claimed)
                left = deadline - loop.time()
                if claimed or left <= 0:
                    break
                if self._work.is_closed:
                    raise Draining
                await waiter.wait(left)
        # There may be more work of these functions for the next waiting claim.
        if claimed:
            self._work.publish(*{*notified, *(operation.function for operation in claimed)})
        return claimed

    def _give_back(self, by: Principal, begun: int, claimed: Iterable[Operation]) -> None:
        """Release operations that were claimed for a caller that has gone."""
        self._announce(by, begun, claimed)
        for operation in claimed:
            task = asyncio.create_task(self._release(by, operation))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    async def _release(self, by: Principal, operation: Operation) -> None:
        preconditions = Preconditions(expected_revision=operation.revision)
        request = transition_request(
            by, Transition.RELEASE, operation.id, preconditions, reason=ABANDONED
        )
        with contextlib.suppress(MilepostError):  # at worst, its lease runs out
            await self._committer.commit(by, request)

    def _announce(self, by: Principal, begun: int, claimed: Iterable[Operation]) -> None:
        for operation in claimed:
            result = TransitionResult(operation)
            self._committer.announce(by, Transition.CLAIM, result, begun=begun)
