"""Batching: calls that arrive while a transaction runs form the next one.

A `Batcher` is a queue, and a thread with its own database session. While the session is idle, the
calls of one turn of the event loop run at once: no timer delays the calls of a quiet service. While
a transaction runs, calls queue up, and all of them go into the next transaction. The SQL does not
depend on batching.

The thread also makes cancellation safe: a caller that gives up abandons its future, never a
transaction. A batch is committed or rolled back as a whole, and a call that is still queued is
dropped. What is committed for a caller that has given up is announced all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from milepost import telemetry
from milepost.domain.errors import Overloaded, StoreUnavailable, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Sequence

    from milepost.storage.session import Session
    from milepost.storage.transaction_spans import TransactionSpans


Item = TypeVar("Item")
Result = TypeVar("Result")

if TYPE_CHECKING:
    Run = Callable[[Session, Sequence[Item]], Sequence[Result | Exception]]
    """Runs one statement for several items; returns a result or an exception for each."""

MAX_WAITING: Final = 10_000
"""Calls that may wait in one batcher; more are refused at once."""
MAX_BATCH: Final = 256
QUEUE_TIMEOUT_S: Final = 0.85
"""Time that a call waits for the database before it fails as unavailable: under 1 s."""
WATCH_INTERVAL_S: Final = 0.05
MAX_CHARGE_S: Final = 2 * WATCH_INTERVAL_S
"""Time that one look of the watch may charge to the database; more is lateness of this process."""


class _Call(Generic[Item, Result]):
    """A waiting call: `run` handles its item together with those of other calls."""

    __slots__ = (
        "arrival",
        "context",
        "future",
        "item",
        "key",
        "on_abandoned",
        "run",
        "time",
        "trace",
    )

    arrival: float
    """The database time, not that of the event loop; see `Batcher._watch`."""
    time: float
    """The time of the event loop at the arrival."""

    def __init__(
        self,
        run: Run[Item, Result],
        item: Item,
        key: Hashable,
        future: asyncio.Future[Result],
        *,
        time: float,
        arrival: float,
        on_abandoned: Callable[[Result], None] | None,
    ) -> None:
        self.run = run
        self.item = item
        self.key = key
        self.future = future
        self.time = time
        self.arrival = arrival
        self.on_abandoned = on_abandoned
        self.context = contextvars.copy_context()
        self.trace = telemetry.recorded_call()


_AnyCall = _Call[Any, Any]
"""A call of any type: calls of different types share a queue."""


class Batcher:
    """Runs calls in batches, one batch at a time, in a thread of its own.

    In a batch the items of one `run` share a statement, and the statements run one after the
    other. `run` gets the session and its items, no two of which have the same key, and returns a
    result or the exception to raise for each. If `run` itself raises, nothing has changed, and it
    may run again.
    """

    def __init__(
        self,
        name: str,
        session: Session,
        *,
        max_batch: int = MAX_BATCH,
        repeatable: bool = False,
        queue_timeout_s: float = QUEUE_TIMEOUT_S,
        restarts_timeout: bool = False,
        spans: TransactionSpans | None = None,
    ) -> None:
        """Start the thread.

        Args:
            name: the name of the thread.
            session: the connection, which only this thread uses.
            max_batch: the maximum number of calls in one batch.
            repeatable: run again after a lost connection; only for reads.
            queue_timeout_s: the time that a call waits for the database.
            restarts_timeout: count that time anew after each batch that the database has answered.
                Calls of many batches then wait for their turn, and fail only if it stops answering.
            spans: records the transactions.
        """
        self._spans = spans
        self._queue_timeout = queue_timeout_s
        self._loop = asyncio.get_running_loop()
        self._session = session
        self._max_batch = max_batch
        self._repeatable = repeatable
        self._restarts_timeout = restarts_timeout
        self._waiting: deque[_AnyCall] = deque()
        self._running: list[_AnyCall] = []
        self._running_since = 0.0
        self._answered: list[_AnyCall] | None = None
        self._database_time = 0.0
        self._watch_time = 0.0
        self._dispatching = False
        self._watcher: asyncio.TimerHandle | None = None
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._waits = telemetry.batch_waits.labels(name)
        self._batches: queue.SimpleQueue[list[_AnyCall] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"milepost-{name}", daemon=True)
        self._thread.start()

    def submit(
        self,
        run: Run[Item, Result],
        item: Item,
        key: Hashable,
        on_abandoned: Callable[[Result], None] | None = None,
    ) -> asyncio.Future[Result]:
        """Return a future with the result of `item`, or with its exception.

        Args:
            run: the function that handles it. Calls with equal `run` share a statement.
            item: the input of this call.
            key: calls with equal keys never share a batch, and keep their order.
            on_abandoned: is called with the result if the future is done before it; see `call`.

        Raises:
            Overloaded: at once, when too many calls wait.
            StoreUnavailable: at once when this batcher is closed, or in the future when the
                database does not answer within the queue timeout.
        """
        if self._closing:
            raise StoreUnavailable
        if len(self._waiting) >= MAX_WAITING:
            raise Overloaded
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiting.append(
            _Call(
                run,
                item,
                key,
                future,
                time=self._loop.time(),
                arrival=self._database_time,
                on_abandoned=on_abandoned,
            )
        )
        self._dispatch_soon()
        if self._watcher is None:
            self._watch_time = self._loop.time()
            self._watcher = self._loop.call_later(WATCH_INTERVAL_S, self._watch)
        return future

    async def call(
        self,
        run: Run[Item, Result],
        item: Item,
        key: Hashable,
        on_abandoned: Callable[[Result], None],
    ) -> Result:
        """Return the result of `submit`, or pass it to `on_abandoned` if the caller has given up.

        That is so if the caller is cancelled while its transaction runs, or has waited too long.
        `on_abandoned` runs on the event loop, in the context of the caller.
        """
        future = self.submit(run, item, key, on_abandoned)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None:
                on_abandoned(future.result())  # it was settled just before the cancellation
            raise

    async def close(self) -> None:
        """Finish the waiting calls, then end the thread and its session.

        When the database is unavailable, the calls have timed out and this returns: the thread ends
        once the driver returns.
        """
        self._closing = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), QUEUE_TIMEOUT_S * 2)
        self._batches.put(None)
        await asyncio.to_thread(self._thread.join, QUEUE_TIMEOUT_S * 2)

    def _dispatch_soon(self) -> None:
        """Schedule the next batch; calls that arrive in this turn of the event loop join it."""
        if not self._dispatching and not self._running:
            self._dispatching = True
            self._idle.clear()
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Pass the next batch to the thread, unless the queue is empty."""
        self._dispatching = False
        batch: dict[Hashable, _AnyCall] = {}
        later: list[_AnyCall] = []
        while self._waiting and len(batch) < self._max_batch:
            call = self._waiting.popleft()
            if call.future.done():  # abandoned by its caller before it ran
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
        self._running_since = self._database_time
        self._waits.observe(self._loop.time() - self._running[0].time)
        self._batches.put(self._running)

    def _settle(self, results: Sequence[Any]) -> None:
        """Set the future of each call of the finished batch."""
        batch, self._running = self._running, []
        if self._restarts_timeout:
            for call in self._waiting:
                call.arrival = self._database_time
        for call, result in zip(batch, results, strict=True):
            if call.future.done():
                if call.on_abandoned is not None and not isinstance(result, Exception):
                    call.context.run(call.on_abandoned, result)
            elif isinstance(result, Exception):
                call.future.set_exception(result)
            else:
                call.future.set_result(result)
        self._dispatch_soon()

    def _watch(self) -> None:
        """Fail the calls that have waited too long, and abort a statement that hangs.

        Only time in which the database owes an answer counts. When the event loop or the whole
        process is late, answers wait for it, and it does not blame the database.
        """
        self._watcher = None
        now = self._loop.time()
        if self._running and self._answered is not self._running:
            self._database_time += min(now - self._watch_time, MAX_CHARGE_S)
        self._watch_time = now
        latest_arrival = self._database_time - self._queue_timeout
        # Each is in the order of arrival; running and waiting calls are not ordered between them.
        for calls in (self._running, self._waiting):
            for call in itertools.takewhile(lambda call: call.arrival <= latest_arrival, calls):
                if not call.future.done():
                    call.future.set_exception(StoreUnavailable())
        if self._running and self._running_since < latest_arrival:
            self._session.abort()
        if self._running or self._waiting:
            self._watcher = self._loop.call_later(WATCH_INTERVAL_S, self._watch)

    # --- in the thread ---

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            results = self._results(batch)
            self._answered = batch
            with contextlib.suppress(RuntimeError):  # the loop is closed: no call waits
                self._loop.call_soon_threadsafe(self._settle, results)
        self._session.reset()

    def _results(self, batch: Sequence[_AnyCall]) -> Sequence[Any]:
        """Run the statements of a batch one after the other; return a result for each call."""
        statements: dict[Run[Any, Any], list[int]] = {}
        for n, call in enumerate(batch):
            statements.setdefault(call.run, []).append(n)
        found: dict[int, Any] = {}
        begun = time.time_ns()
        try:
            with self._session.shared_commit():
                for run, positions in statements.items():
                    answers = self._run_statement(run, [batch[n] for n in positions])
                    self._session.require_shared_transaction()
                    found.update(zip(positions, answers, strict=True))
        except Exception as error:  # noqa: BLE001 - the batch was rolled back
            results: Sequence[Any] = [self._session.failed(error)] * len(batch)
        else:
            results = [found[n] for n in range(len(batch))]
        if self._session.shares_commits:
            self._record(batch, statements, results, begun)
        return results

    def _run_statement(self, run: Run[Any, Any], calls: Sequence[_AnyCall]) -> Sequence[Any]:
        """Run the statement of some calls, which is a transaction unless they share one."""
        begun = time.time_ns()
        results = self._run_isolated(run, [call.item for call in calls])
        if not self._session.shares_commits:
            self._record(calls, (run,), results, begun)
        return results

    def _record(
        self,
        calls: Sequence[_AnyCall],
        runs: Collection[Run[Any, Any]],
        results: Sequence[Any],
        begun: int,
    ) -> None:
        """Record a transaction, if it carried recorded calls. A failure does not end the thread."""
        if self._spans is not None:
            with contextlib.suppress(Exception):
                self._spans.record([call.trace for call in calls], runs, results, begun=begun)

    def _run_isolated(
        self, run: Run[Item, Result], items: Sequence[Item]
    ) -> Sequence[Result | Exception]:
        """Return a result for every item; a refused item does not fail the others."""
        try:
            return self._session.with_retries(
                lambda: run(self._session, items), repeatable=self._repeatable
            )
        except Exception as error:  # noqa: BLE001 - each call gets a result
            if len(items) == 1 or isinstance(error, Unavailable):
                return [error] * len(items)
            return [result for item in items for result in self._run_isolated(run, [item])]
