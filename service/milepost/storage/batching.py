"""Gathering: calls that arrive while a transaction runs form the next one.

A `Lane` is a queue, and a thread with a held database session. While the session is idle a call
is taken at once, alone: there is no timer that would make a quiet service wait. While a
transaction runs, what arrives queues up, and all of it goes into the next transaction. The SQL
knows nothing of this.

The thread is also what makes cancellation harmless: a caller that goes away abandons its future,
never a transaction. What was taken is committed or not as a whole, and what was still queued is
dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from milepost.domain.errors import Overloaded, StoreUnavailable, Unavailable
from milepost.storage.translate import is_disconnect, is_retryable, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from milepost.storage.engine import Session

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST_WAITING: Final = 10_000
"""Calls that one lane holds; more are refused at once."""
LARGEST_BATCH: Final = 256
PATIENCE_S: Final = 0.9
"""How long a call waits for the database before it is told that there is none: under 1 s."""
WATCH_INTERVAL_S: Final = 0.05
TRIES: Final = 3
"""How often a transaction runs that the database itself undid (deadlock, serialization)."""


class _Call(Generic[Item, Answer]):
    """One call that waits in a lane."""

    __slots__ = ("arrival", "future", "item", "key")

    def __init__(
        self, item: Item, key: Hashable, future: asyncio.Future[Answer], arrival: float
    ) -> None:
        self.item = item
        self.key = key
        self.future = future
        self.arrival = arrival


class Lane(Generic[Item, Answer]):
    """Runs `work` on gathered items, one batch at a time, in a thread of its own.

    `work` gets the session and the items of a batch, no two of which have the same key, and
    answers each with a value or with the exception to raise; raising fails the whole batch.
    """

    def __init__(
        self,
        name: str,
        session: Session,
        work: Callable[[Session, Sequence[Item]], Sequence[Answer | Exception]],
        *,
        largest_batch: int = LARGEST_BATCH,
        repeatable: bool = False,
    ) -> None:
        """Start the thread. `repeatable` work may run again after a lost connection."""
        self._loop = asyncio.get_running_loop()
        self._session = session
        self._work = work
        self._largest = largest_batch
        self._repeatable = repeatable
        self._queue: queue.SimpleQueue[_Call[Item, Answer] | None] = queue.SimpleQueue()
        self._waiting: deque[_Call[Item, Answer]] = deque()
        self._watcher: asyncio.TimerHandle | None = None
        self._batch_start: float | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"milepost-{name}", daemon=True)
        self._thread.start()

    async def submit(self, item: Item, key: Hashable) -> Answer:
        """Return the answer to `item`, or raise the error it was answered with.

        Args:
            item: what to do.
            key: items with equal keys never share a batch, and keep their order.

        Raises:
            Overloaded: at once, when too many calls wait.
            StoreUnavailable: when the database has not answered for `PATIENCE_S`.
        """
        if self._closing:
            raise StoreUnavailable
        if self._queue.qsize() >= MOST_WAITING:
            raise Overloaded
        call: _Call[Item, Answer] = _Call(
            item, key, self._loop.create_future(), time.monotonic()
        )
        self._waiting.append(call)
        self._queue.put(call)
        if self._watcher is None:
            self._watcher = self._loop.call_later(WATCH_INTERVAL_S, self._watch)
        return await call.future

    async def close(self) -> None:
        """Finish what waits, then end the thread and its session."""
        self._closing = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, PATIENCE_S * 2)
        if self._watcher is not None:
            self._watcher.cancel()

    def _watch(self) -> None:
        """Answer the calls that have waited too long, and free the thread if it hangs."""
        self._watcher = None
        now = time.monotonic()
        while self._waiting and (
            self._waiting[0].future.done() or now - self._waiting[0].arrival > PATIENCE_S
        ):
            call = self._waiting.popleft()
            if not call.future.done():
                call.future.set_exception(StoreUnavailable())
        if self._batch_start is not None and now - self._batch_start > PATIENCE_S:
            self._session.abort()
        if self._waiting:
            self._watcher = self._loop.call_later(WATCH_INTERVAL_S, self._watch)

    # What follows runs in the thread.

    def _run(self) -> None:
        held: list[_Call[Item, Answer]] = []
        open_ = True
        while open_ or held:
            batch, held, open_ = self._gather(held, open_=open_)
            if batch:
                self._batch_start = time.monotonic()
                answers = self._answers(batch)
                self._batch_start = None
                with contextlib.suppress(RuntimeError):  # the loop may be closed: nobody waits
                    self._loop.call_soon_threadsafe(_settle, batch, answers)
        self._session.reset()

    def _gather(
        self, held: list[_Call[Item, Answer]], *, open_: bool
    ) -> tuple[list[_Call[Item, Answer]], list[_Call[Item, Answer]], bool]:
        """Take what waits: the batch, what must wait for the next one, and whether to go on."""
        batch: dict[Hashable, _Call[Item, Answer]] = {}
        later: list[_Call[Item, Answer]] = []
        for call in held:
            _place(call, batch, later)
        while open_ and len(batch) < self._largest:
            try:
                call_or_end = self._queue.get(block=not batch and not later)
            except queue.Empty:
                break
            if call_or_end is None:
                open_ = False
            else:
                _place(call_or_end, batch, later)
        return list(batch.values()), later, open_

    def _answers(self, batch: Sequence[_Call[Item, Answer]]) -> Sequence[Answer | Exception]:
        try:
            return self._attempt([call.item for call in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, every caller is answered
            if len(batch) == 1 or isinstance(error, Unavailable):
                return [error] * len(batch)
            # One item that the database refuses must not fail its neighbours.
            return [answer for call in batch for answer in self._answers([call])]

    def _attempt(self, items: Sequence[Item]) -> Sequence[Answer | Exception]:
        tries = TRIES
        while True:
            tries -= 1
            try:
                return self._work(self._session, items)
            except Exception as error:
                lost = is_disconnect(error)
                if lost:
                    self._session.reset()
                if tries and (is_retryable(error) or (lost and self._repeatable)):
                    tries = 0 if lost else tries
                    continue
                raise translate(error) from error


def _place(
    call: _Call[Item, Answer],
    batch: dict[Hashable, _Call[Item, Answer]],
    later: list[_Call[Item, Answer]],
) -> None:
    if call.future.done():  # given up before it was taken: as if never asked
        return
    if call.key in batch:
        later.append(call)
    else:
        batch[call.key] = call


def _settle(
    batch: Sequence[_Call[Item, Answer]], answers: Sequence[Answer | Exception]
) -> None:
    """Hand each caller its answer (on the event loop)."""
    for call, answer in zip(batch, answers, strict=True):
        if call.future.done():
            continue
        if isinstance(answer, Exception):
            call.future.set_exception(answer)
        else:
            call.future.set_result(answer)
