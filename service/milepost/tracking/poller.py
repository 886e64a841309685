"""The guarantee behind the hints: one look now and then, for all listeners of this replica."""

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

CHUNK: Final = 1_000
"""Operations whose revisions one statement reads."""


class Poller:
    """Wakes every listener whose operation has moved on, or is gone, without a hint.

    Its cost is one read of (id, revision) per operation that is listened to, and hangs neither on
    how many listen to it nor on how much happens.
    """

    def __init__(
        self, history: HistoryStore, subscriptions: Subscriptions, *, interval: float
    ) -> None:
        """Look into `history` every `interval` seconds, for the listeners of `subscriptions`."""
        self._history = history
        self._changes = subscriptions
        self._interval = interval
        self._hurry = asyncio.Event()

    def look_now(self) -> None:
        """Look before the interval is over: hints were lost."""
        self._hurry.set()

    async def run(self) -> None:
        """Look until cancelled. While the store is away there is nothing to be seen."""
        loop = asyncio.get_running_loop()
        while True:
            timer = loop.call_later(self._interval, self._hurry.set)
            await self._hurry.wait()
            timer.cancel()
            self._hurry.clear()
            try:
                await self.look()
            except Unavailable as error:
                telemetry.log.debug("could not look for changes", reason=error.reason)

    async def look(self) -> None:
        """Look once at every operation that somebody listens to and says what it has seen."""
        ids = iter([id_ for id_, group in self._changes.subscribers.items() if _wants(group)])
        while chunk := list(itertools.islice(ids, CHUNK)):
            self._wake(chunk, await self._history.revisions(chunk))

    def _wake(self, asked: list[OperationId], found: Mapping[OperationId, int]) -> None:
        for operation_id in asked:
            revision = found.get(operation_id)
            for subscriber in self._changes.subscribers.get(operation_id, ()):
                if subscriber.seen not in (None, revision):
                    subscriber.wake()


def _wants(group: set[Subscriber]) -> bool:
    return any(subscriber.seen is not None for subscriber in group)
