"""Batching: calls that arrive while a transaction runs form the next one.

A `Batcher` is a queue, and a thread with a held database session. While the session is idle, the
calls of one turn of the event loop are taken at once: there is no timer that would make a quiet
service wait. While a transaction runs, calls queue up, and all of them go into the next
transaction. The SQL knows nothing of this.

The thread also makes cancellation harmless: a caller that goes away abandons its future, never a
transaction. A batch is committed or not as a whole, and a call that is still queued is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from milepost.domain.errors import Overloaded, StoreUnavailable, Unavailable
from milepost.storage.translate import is_retryable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from milepost.storage.session import Session


Item = TypeVar("Item")
Result = TypeVar("Result")

if TYPE_CHECKING:
    Run = Callable[[Session, Sequence[Item]], Sequence[Result | Exception]]
    """Runs one statement for several items: a result for each, or the exception to raise."""

MAX_WAITING: Final = 10_000
"""Calls that one batcher holds; more are refused at once."""
MAX_BATCH: Final = 256
QUEUE_TIMEOUT_S: Final = 0.85
"""How long a call waits for the database before it is unavailable: under 1 s."""
WATCH_INTERVAL_S: Final = 0.05
TRIES: Final = 3
"""How often a transaction runs that the database itself undid (deadlock, serialization)."""


class _Call(Generic[Item, Result]):
    """One call that waits: `run` answers its item, together with those of other calls."""

    __slots__ = ("arrival", "future", "item", "key", "run")

    def __init__(
        self,
        run: Run[Item, Result],
        item: Item,
        key: Hashable,
        future: asyncio.Future[Result],
        arrival: float,
    ) -> None:
        self.run = run
        self.item = item
        self.key = key
        self.future = future
        self.arrival = arrival


_AnyCall = _Call[Any, Any]
"""A call in a queue, where those of different types wait together."""


class Batcher:
    """Runs calls in batches, one batch at a time, in a thread of its own.

    In a batch the items of one `run` are one statement, and the statements run one after the
    other. `run` gets the session and its items, no two of which have the same key, and returns for
    each a result or the exception to raise. If it raises itself, nothing has happened, and it may
    run again.
    """

    def __init__(
        self,
        name: str,
        session: Session,
        *,
        max_batch: int = MAX_BATCH,
        repeatable: bool = False,
        queue_timeout_s: float = QUEUE_TIMEOUT_S,
    ) -> None:
        """Start the thread.

        Args:
            name: of the thread.
            session: the connection that only this thread uses.
            max_batch: calls in one batch.
            repeatable: run again after a lost connection, as is right for reads.
            queue_timeout_s: how long a call waits for the database.
        """
        self._queue_timeout = queue_timeout_s
        self._loop = asyncio.get_running_loop()
        self._session = session
        self._max_batch = max_batch
        self._repeatable = repeatable
        self._waiting: deque[_AnyCall] = deque()
        self._running: list[_AnyCall] = []
        self._running_since = 0.0
        self._dispatching = False
        self._watcher: asyncio.TimerHandle | None = None
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._batches: queue.SimpleQueue[list[_AnyCall] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"milepost-{name}", daemon=True)
        self._thread.start()

    def submit(self, run: Run[Item, Result], item: Item, key: Hashable) -> asyncio.Future[Result]:
        """Return the future result of `item`, or the exception that it is answered with.

        Args:
            run: what answers it. Calls with equal `run` are one statement.
            item: what is asked for.
            key: calls with equal keys never share a batch, and keep their order.

        Raises:
            Overloaded: at once, when too many calls wait.
            StoreUnavailable: at once when this batcher is closed, or as the answer when the
                database has given none within the queue timeout.
        """
        if self._closing:
            raise StoreUnavailable
        if len(self._waiting) >= MAX_WAITING:
            raise Overloaded
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiting.append(_Call(run, item, key, future, self._loop.time()))
        self._dispatch_soon()
        if self._watcher is None:
            self._watcher = self._loop.call_later(WATCH_INTERVAL_S, self._watch)
        return future

    async def close(self) -> None:
        """Finish what waits, then end the thread and its session.

        When the database is away nobody waits any more, and neither does this: the thread ends
        by itself, when the driver lets it.
        """
        self._closing = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), QUEUE_TIMEOUT_S * 2)
        self._batches.put(None)
        await asyncio.to_thread(self._thread.join, QUEUE_TIMEOUT_S * 2)

    def _dispatch_soon(self) -> None:
        """Let what else arrives in this turn of the event loop join the batch."""
        if not self._dispatching and not self._running:
            self._dispatching = True
            self._idle.clear()
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Hand the thread its next batch, if there is one."""
        self._dispatching = False
        batch: dict[Hashable, _AnyCall] = {}
        later: list[_AnyCall] = []
        while self._waiting and len(batch) < self._max_batch:
            call = self._waiting.popleft()
            if call.future.done():  # given up before it was taken: as if never asked
                continue
            if call.key in batch:
                later.append(call)
            else:
                batch[call.key] = call
        self._waiting.extendleft(reversed(later))
        if not batch:
            self._idle.set()
            return
        self._running = list(batch.values())
        self._running_since = self._loop.time()
        self._batches.put(self._running)

    def _settle(self, answers: Sequence[Any]) -> None:
        """Hand each caller of the finished batch its answer."""
        batch, self._running = self._running, []
        for call, answer in zip(batch, answers, strict=True):
            if call.future.done():
                continue
            if isinstance(answer, Exception):
                call.future.set_exception(answer)
            else:
                call.future.set_result(answer)
        self._dispatch_soon()

    def _watch(self) -> None:
        """Answer the calls that have waited too long, and free the thread if it hangs."""
        self._watcher = None
        late = self._loop.time() - self._queue_timeout
        # In the order of arrival each; what runs may have come before or after what waits.
        for calls in (self._running, self._waiting):
            for call in itertools.takewhile(lambda call: call.arrival <= late, calls):
                if not call.future.done():
                    call.future.set_exception(StoreUnavailable())
        if self._running and self._running_since < late:
            self._session.abort()
        if self._running or self._waiting:
            self._watcher = self._loop.call_later(WATCH_INTERVAL_S, self._watch)

    # What follows runs in the thread.

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            answers = self._answers(batch)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._settle, answers)
        self._session.reset()

    def _answers(self, batch: Sequence[_AnyCall]) -> Sequence[Any]:
        """Return the answers to a batch, one statement after the other."""
        statements: dict[Run[Any, Any], list[int]] = {}
        for n, call in enumerate(batch):
            statements.setdefault(call.run, []).append(n)
        answers: dict[int, Any] = {}
        try:
            with self._session.together():
                for run, places in statements.items():
                    found = self._isolated(run, [batch[n].item for n in places])
                    answers.update(zip(places, found, strict=True))
        except Exception as error:  # noqa: BLE001 - nothing of the batch is committed
            return [self._session.failed(error)] * len(batch)
        return [answers[n] for n in range(len(batch))]

    def _isolated(
        self, run: Run[Item, Result], items: Sequence[Item]
    ) -> Sequence[Result | Exception]:
        """Answer every item; one that the database refuses does not fail its neighbours."""
        try:
            return self._attempt(run, items)
        except Exception as error:  # noqa: BLE001 - whatever it is, every caller is answered
            if len(items) == 1 or isinstance(error, Unavailable):
                return [error] * len(items)
            return [answer for item in items for answer in self._isolated(run, [item])]

    def _attempt(
        self, run: Run[Item, Result], items: Sequence[Item]
    ) -> Sequence[Result | Exception]:
        """Run once, or again as long as that may help."""
        for tries_left in reversed(range(TRIES)):
            try:
                return run(self._session, items)
            except Exception as error:
                meaning = self._session.failed(error)
                lost = self._repeatable and isinstance(meaning, StoreUnavailable)
                if tries_left and (is_retryable(error) or lost):
                    continue
                raise meaning from error
        raise AssertionError  # the last try returns or raises
