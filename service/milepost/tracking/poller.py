"""Polls of revisions: subscribers learn of changes even if every notification is lost."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.domain.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from milepost.domain.operation import OperationId
    from milepost.domain.ports import HistoryStore
    from milepost.tracking.subscriptions import Subscriber, Subscriptions

MAX_POLLED: Final = 1_000
"""Operations in one read."""


class Poller:
    """Notifies every polled subscriber whose operation has a new revision or is gone.

    One poll reads (id, revision) once per operation with subscribers. Its cost depends neither on
    the number of subscribers of an operation nor on the number of changes.
    """

    def __init__(
        self, history: HistoryStore, subscriptions: Subscriptions, *, interval: float
    ) -> None:
        """Poll `history` every `interval` seconds for the subscribers of `subscriptions`."""
        self._history = history
        self._subscriptions = subscriptions
        self._interval = interval
        self._is_due = asyncio.Event()

    def poll_now(self) -> None:
        """Poll before the interval is over, because notifications were lost."""
        self._is_due.set()

    async def run(self) -> None:
        """Poll until cancelled. A poll that fails for want of the store is logged."""
        loop = asyncio.get_running_loop()
        while True:
            timer = loop.call_later(self._interval, self._is_due.set)
            await self._is_due.wait()
            timer.cancel()
            self._is_due.clear()
            try:
                await self.poll()
            except Unavailable as error:
                telemetry.log.debug("could not poll revisions", reason=error.reason)

    async def poll(self) -> None:
        """Poll once every operation with a subscriber that has read a revision."""
        polled = self._subscriptions.polled
        ids = iter([id_ for id_, group in polled.items() if _has_read(group)])
        while chunk := list(itertools.islice(ids, MAX_POLLED)):
            self._notify(chunk, await self._history.revisions(chunk))

    def _notify(self, polled: list[OperationId], revisions: Mapping[OperationId, int]) -> None:
        for operation_id in polled:
            revision = revisions.get(operation_id)
            for subscriber in self._subscriptions.polled.get(operation_id, ()):
                if subscriber.seen_revision not in (None, revision):
                    subscriber.notify()


def _has_read(group: set[Subscriber]) -> bool:
    return any(subscriber.seen_revision is not None for subscriber in group)
