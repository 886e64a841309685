"""Who waits for which operation on this replica, and what wakes them.

A wake-up is a hint and carries nothing: whoever is woken reads what has become of the operation.
So hints may be merged, sent twice, or come for nothing; one that is lost only costs time, because
everybody also looks by itself now and then, or lets `Poller` look for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from milepost.domain.operation import OperationId


class Subscriber:
    """One who waits for changes of one operation. There may be many thousands: it is small."""

    __slots__ = ("_hinted", "_waiter", "seen")

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self._hinted = False
        self._waiter: asyncio.Future[None] | None = None
        self.seen: int | None = None
        """The revision that it knows. Whoever says so is woken by the poller as well, when the
        operation has another one, or is gone."""

    def wake(self) -> None:
        """Let `wait` return, now or when it is called next."""
        self._hinted = True
        self._release()

    async def wait(self, seconds: float) -> bool:
        """Return true at the first hint since the last call, or false after `seconds`.

        One wait at a time: not through `asyncio.wait_for`, which makes a task of every wait.
        """
        if not self._hinted:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, self._release)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        hinted, self._hinted = self._hinted, False
        return hinted

    def _release(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Subscriptions:
    """The listeners of one replica, by operation."""

    def __init__(self) -> None:
        """Begin with nobody listening, and with nobody else to be told."""
        self._listeners: dict[OperationId, set[Subscriber]] = {}
        self._tell_others: Callable[[OperationId], None] | None = None

    def tell_others(self, tell: Callable[[OperationId], None]) -> None:
        """Call `tell` with every operation that is published here: other replicas want to know."""
        self._tell_others = tell

    @contextlib.contextmanager
    def listen(self, operation_id: OperationId) -> Iterator[Subscriber]:
        """Wake the listener at every change of the operation from now on."""
        subscriber = Subscriber()
        self.join(operation_id, subscriber)
        try:
            yield subscriber
        finally:
            self.leave(operation_id, subscriber)

    def join(self, operation_id: OperationId, subscriber: Subscriber) -> None:
        """Wake the listener at every change of the operation, until it leaves."""
        self._listeners.setdefault(operation_id, set()).add(subscriber)

    def leave(self, operation_id: OperationId, subscriber: Subscriber) -> None:
        """Wake the listener no more."""
        group = self._listeners.get(operation_id)
        if group is None:
            return
        group.discard(subscriber)
        if not group:
            del self._listeners[operation_id]

    @property
    def subscribers(self) -> Mapping[OperationId, set[Subscriber]]:
        """Who listens, by operation."""
        return self._listeners

    def publish(self, operation_id: OperationId) -> None:
        """Wake whoever listens to this operation, which has moved here, on every replica."""
        self.hear(operation_id)
        if self._tell_others is not None:
            self._tell_others(operation_id)

    def hear(self, operation_id: OperationId) -> None:
        """Wake whoever listens here to this operation, which has moved on some replica."""
        for subscriber in self._listeners.get(operation_id, ()):
            subscriber.wake()

    def publish_all(self) -> None:
        """Wake everybody: hints may have been lost."""
        for group in self._listeners.values():
            for subscriber in group:
                subscriber.wake()

    def publish_unseen(self) -> None:
        """Wake those for whom no poller looks: hints may have been lost."""
        for group in self._listeners.values():
            for subscriber in group:
                if subscriber.seen is None:
                    subscriber.wake()
