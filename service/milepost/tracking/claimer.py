"""Claiming: workers wait for pending work, and are woken when there is some for them.

A hint that there is work of a function wakes one worker that waits for it. Who found something
wakes the next one: as many workers as there is work for are woken, and one more. Hints come from
the creates and releases of this replica, at once. For those of others, and for hints that were
lost, one look for all who wait here is taken at the database every half second.
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
    from milepost.domain.ports import WorkStore
    from milepost.tracking.subscriptions import Subscriptions

LOOK_INTERVAL_S: Final = 0.5
"""How long work that another replica was given may go unseen here."""
MAX_WAITING: Final = 1_000
"""Claims that wait on one replica; more are refused at once."""
MARGIN_S: Final = 0.25
"""How long before its deadline a claim answers, so that the answer arrives in time."""


class Waiter:
    """One claim that waits for work of some functions."""

    __slots__ = ("_event", "functions")

    def __init__(self, functions: Sequence[str]) -> None:
        """Nothing has been heard of work yet."""
        self.functions = frozenset(functions)
        self._event = asyncio.Event()

    @property
    def is_awake(self) -> bool:
        """Whether a hint has come that was not followed yet."""
        return self._event.is_set()

    def wake(self) -> None:
        """Let `wait` return."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Return at a hint, or after `seconds`."""
        # Not wait_for: before Python 3.12 it may swallow a cancellation that comes with the hint.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()

    def follow(self) -> None:
        """The hints so far are followed now; later ones are new."""
        self._event.clear()


class PendingWork:
    """Who waits for work on this replica, the longest first."""

    def __init__(self, store: WorkStore) -> None:
        """Begin with nobody waiting; look into `store` for the work that others were given."""
        self._store = store
        self._waiters: dict[Waiter, None] = {}
        self.is_closed = False

    @contextlib.contextmanager
    def listen(self, functions: Sequence[str]) -> Iterator[Waiter]:
        """Wake the waiter when there is work of `functions`, unless another one is woken for it.

        Raises:
            Overloaded: too many wait already.
        """
        if len(self._waiters) >= MAX_WAITING:
            raise Overloaded
        waiter = Waiter(functions)
        self._waiters[waiter] = None
        try:
            yield waiter
        finally:
            del self._waiters[waiter]
            if waiter.is_awake:  # it leaves a hint behind that it did not follow
                self.publish(*waiter.functions)

    def publish(self, *functions: str) -> None:
        """Wake one waiter for each function that has got work."""
        for function in functions:
            for waiter in self._waiters:
                if function in waiter.functions and not waiter.is_awake:
                    waiter.wake()
                    break

    def close(self) -> None:
        """Let nobody wait any more."""
        self.is_closed = True
        for waiter in self._waiters:
            waiter.wake()

    async def look(self) -> None:
        """Look once for work of all functions that somebody waits for, if somebody does."""
        functions = frozenset[str]().union(*(waiter.functions for waiter in self._waiters))
        if functions:
            self.publish(*await self._store.pending(functions))


class Claimer:
    """Gives pending work to those who ask for it."""

    def __init__(
        self, store: WorkStore, *, limits: Limits, subscriptions: Subscriptions, work: PendingWork
    ) -> None:
        """Claim in `store`, within `limits`; wait for `work`; publish claims to `subscriptions`."""
        self._store = store
        self._limits = limits
        self._changes = subscriptions
        self._work = work

    async def claim(
        self,
        by: Principal,
        functions: tuple[str, ...],
        *,
        most: int = 1,
        lease: timedelta | None = None,
        worker: str | None = None,
        timeout: timedelta | None = None,  # noqa: ASYNC109 - the caller's wish, not a bound
        time_left: float | None = None,
    ) -> list[Operation]:
        """Lease up to `most` operations to `by` as soon as there are any, or none at the timeout.

        Args:
            by: who asks, and is granted every one of the functions.
            functions: whose work is wanted.
            most: operations, at least 1.
            lease: how long each is held; clamped.
            worker: the name of the worker, if it has one.
            timeout: how long to wait; within the limit, which is also the default.
            time_left: until the deadline of the call, in seconds.

        Raises:
            PermissionDenied: one of the functions is not granted.
            Overloaded: too many wait already.
            Draining: this replica stops.
        """
        for function in functions:
            if not by.may_work_on(function):
                raise PermissionDenied(role=Role.WORKER, function=function)
        wanted = ClaimRequest(
            functions=functions,
            max_operations=most,
            lease=self._limits.lease(lease),
            actor=by.subject,
            worker=worker or by.subject,
        )
        claimed = await self._first(wanted, self._deadline(timeout, time_left))
        self._record(by, claimed)
        return claimed

    def _deadline(self, timeout: timedelta | None, time_left: float | None) -> float:
        wait = self._limits.claim_wait if timeout is None else min(timeout, self._limits.claim_wait)
        seconds = wait.total_seconds()
        if time_left is not None:
            seconds = min(seconds, time_left - MARGIN_S)
        return asyncio.get_running_loop().time() + seconds

    async def _first(self, wanted: ClaimRequest, deadline: float) -> list[Operation]:
        """Return what can be claimed first, or nothing at the deadline."""
        loop = asyncio.get_running_loop()
        with self._work.listen(wanted.functions) as waiter:
            while True:
                waiter.follow()
                claimed = await self._store.claim(wanted)
                left = deadline - loop.time()
                if claimed or left <= 0:
                    break
                if self._work.is_closed:
                    raise Draining
                await waiter.wait(left)
        # Where this came from there may be more, for the next one who waits.
        self._work.publish(*_functions(claimed))
        return claimed

    def _record(self, by: Principal, claimed: Iterable[Operation]) -> None:
        for operation in claimed:
            self._changes.publish(operation.id)
            telemetry.record_transition(Transition.CLAIM, TransitionResult(operation), by)


def _functions(operations: Iterable[Operation]) -> set[str]:
    return {operation.function for operation in operations}
