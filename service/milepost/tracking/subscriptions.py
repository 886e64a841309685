"""Subscriptions to changes of operations on this replica.

A notification carries nothing but the operation: the subscriber reads the operation itself. So
notifications may be merged, repeated or superfluous. A lost one only costs time, because every
subscriber also reads from time to time, or lets `Poller` do so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from milepost.domain.operation import OperationId


class Subscriber:
    """Waits for changes of one operation. It is small, because there may be many thousands."""

    __slots__ = ("_is_notified", "_waiter", "seen_revision")

    is_polled: ClassVar[bool] = True
    """`Poller` reads its operation. Others read it themselves."""

    def __init__(self) -> None:
        """Begin without a notification."""
        self._is_notified = False
        self._waiter: asyncio.Future[None] | None = None
        self.seen_revision: int | None = None
        """Revision that the subscriber has read. `Poller` notifies it when the operation has
        another one or is gone; None excludes the subscriber from polls until it has read one."""

    def notify(self) -> None:
        """Let `wait` return, now or at its next call."""
        self._is_notified = True
        self._end_wait()

    async def wait(self, seconds: float) -> bool:
        """Return true at the first notification since the last call, or false after `seconds`.

        One wait at a time. `asyncio.wait_for` would create a task for each.
        """
        if not self._is_notified:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, self._end_wait)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        is_notified, self._is_notified = self._is_notified, False
        return is_notified

    def _end_wait(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Subscriptions:
    """The subscribers of one replica, by operation."""

    def __init__(self) -> None:
        """Begin without subscribers, and without a connection to other replicas."""
        self._polled: dict[OperationId, set[Subscriber]] = {}
        self._unpolled: dict[OperationId, set[Subscriber]] = {}
        self._forward: Callable[[OperationId], None] | None = None
        self.are_complete = True
        """True while every change on another replica notifies, unless that replica fails."""

    @property
    def polled(self) -> Mapping[OperationId, set[Subscriber]]:
        """The subscribers that `Poller` serves, by operation."""
        return self._polled

    @property
    def unpolled(self) -> Mapping[OperationId, set[Subscriber]]:
        """The subscribers that poll for themselves, by operation."""
        return self._unpolled

    def forward_to(self, forward: Callable[[OperationId], None]) -> None:
        """Call `forward` with every operation published here, for the other replicas."""
        self._forward = forward

    @contextlib.contextmanager
    def subscribed(self, operation_id: OperationId) -> Iterator[Subscriber]:
        """Subscribe to the operation inside a ``with`` block."""
        subscriber = Subscriber()
        self.subscribe(operation_id, subscriber)
        try:
            yield subscriber
        finally:
            self.unsubscribe(operation_id, subscriber)

    def subscribe(self, operation_id: OperationId, subscriber: Subscriber) -> None:
        """Notify the subscriber of every change of the operation from now on."""
        self._groups(subscriber).setdefault(operation_id, set()).add(subscriber)

    def unsubscribe(self, operation_id: OperationId, subscriber: Subscriber) -> None:
        """Notify the subscriber no more."""
        groups = self._groups(subscriber)
        group = groups[operation_id]
        group.discard(subscriber)
        if not group:
            del groups[operation_id]

    def _groups(self, subscriber: Subscriber) -> dict[OperationId, set[Subscriber]]:
        return self._polled if subscriber.is_polled else self._unpolled

    def publish(self, operation_id: OperationId) -> None:
        """Notify the subscribers of an operation that changed here, on every replica."""
        self.deliver(operation_id)
        if self._forward is not None:
            self._forward(operation_id)

    def deliver(self, operation_id: OperationId) -> None:
        """Notify the subscribers on this replica of an operation that changed on any replica."""
        for groups in (self._polled, self._unpolled):
            for subscriber in groups.get(operation_id, ()):
                subscriber.notify()

    def notify_all(self) -> None:
        """Notify every subscriber, because notifications may have been lost."""
        for subscriber in self._all():
            subscriber.notify()

    def notify_unpolled(self) -> None:
        """Notify the subscribers that `Poller` leaves out, after notifications were lost."""
        for subscriber in self._all():
            if subscriber.seen_revision is None:
                subscriber.notify()

    def _all(self) -> Iterator[Subscriber]:
        groups = itertools.chain(self._polled.values(), self._unpolled.values())
        return itertools.chain.from_iterable(groups)
