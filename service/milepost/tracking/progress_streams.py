"""The progress streams of one replica: their opening and ending, and the polls for all of them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.domain.errors import Draining, Unavailable
from milepost.tracking.progress_stream import ProgressStream
from milepost.tracking.status_polls import StatusPolls
from milepost.tracking.streamed_operations import StreamedOperations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from milepost.domain.limits import Limits
    from milepost.domain.operation import Principal
    from milepost.domain.ports import OperationStore
    from milepost.tracking.committer import Committer
    from milepost.tracking.streamed_operations import Clock
    from milepost.tracking.subscriptions import Subscriptions

ROUND_INTERVAL_S: Final = 0.25
"""Time between two rounds of status polls; a notification causes one at once."""
MAX_SILENCE_S: Final = 5.0
"""Time without a commit or a poll after which an operation is polled, for a notification that a
replica did not send because it ended."""
MAX_UNNOTIFIED_SILENCE_S: Final = 0.5
"""The same while notifications do not arrive."""


class ProgressStreams:
    """The progress streams of one replica. Create it on a running event loop."""

    def __init__(
        self,
        committer: Committer,
        store: OperationStore,
        *,
        subscriptions: Subscriptions,
        limits: Limits,
        clock: Clock | None = None,
    ) -> None:
        """Commit through `committer`; learn of other transitions from notifications and polls.

        Args:
            committer: commits the updates.
            store: holds the statuses.
            subscriptions: notify of transitions.
            limits: bound the operations and the commits of a stream.
            clock: that of the event loop, unless a test has its own.
        """
        self._committer = committer
        self._subscriptions = subscriptions
        self._limits = limits
        self._clock = clock or asyncio.get_running_loop()
        self.polls = StatusPolls(store)
        self._operations = StreamedOperations(subscriptions, self.polls)
        self._open: set[ProgressStream] = set()
        self._polling: asyncio.Task[None] | None = None
        telemetry.progress_streams.set_function(lambda: len(self._open))

    @property
    def pending_progress(self) -> StreamedOperations:
        """The updates of all streams that are not committed yet."""
        return self._operations

    @contextlib.asynccontextmanager
    async def open(self, by: Principal) -> AsyncIterator[ProgressStream]:
        """Open a stream for a worker.

        Raises:
            Draining: the replica stops, and the worker has not read its items in time.
        """
        stream = ProgressStream(
            by,
            self._committer,
            all_operations=self._operations,
            polls=self.polls,
            limits=self._limits,
            clock=self._clock,
        )
        self._open.add(stream)
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll())
        try:
            async with stream.drain_timeout:
                yield stream
        except TimeoutError:
            if stream.drain_timeout.expired():
                raise Draining from None
            raise
        finally:
            stream.close()
            self._open.discard(stream)
            if not self._open and self._polling is not None:
                self._polling.cancel()
                self._polling = None

    def drain(self) -> None:
        """End every stream after its pending updates are committed."""
        for stream in tuple(self._open):
            stream.drain()

    def request_silent(self) -> None:
        """Request a poll of every operation that has been silent for too long."""
        is_notified = self._subscriptions.are_complete
        max_silence = MAX_SILENCE_S if is_notified else MAX_UNNOTIFIED_SILENCE_S
        since = self._clock.time() - max_silence
        for stream in self._open:
            stream.record_counts()
            self.polls.request_later(stream.silent(since))

    async def _poll(self) -> None:
        """Poll after notifications at once, and silent operations in every round."""
        next_round = self._clock.time()
        while True:
            await self.polls.wait(ROUND_INTERVAL_S)
            if self._clock.time() >= next_round:
                next_round = self._clock.time() + ROUND_INTERVAL_S
                self.request_silent()
            try:
                await self.polls.run()
            except Exception as error:  # noqa: BLE001 - later polls may succeed
                telemetry.record_failure(
                    "progress streams", error, expected=isinstance(error, Unavailable)
                )
