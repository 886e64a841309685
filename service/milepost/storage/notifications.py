"""Notifications between the replicas on one PostgreSQL database: which operations have changed.

One connection, in a thread of its own, sends and receives them with NOTIFY and LISTEN. They are not
part of a transition: a commit with a NOTIFY holds a lock of the whole server until it is durable,
so transitions that notify would wait for each other. Instead the ids of changed operations are
collected and sent a few times a second, in a transaction that need not be durable.

A notification may be lost, with the connection or because too many were collected. Then all
replicas poll, as they do from time to time in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry
from milepost.domain.operation import ID_LENGTH, ID_PREFIX, OperationId
from milepost.storage.session import Session
from milepost.storage.translate import translate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.engine import Engine

CHANNEL: Final = "milepost_changes"
APPLICATION: Final = "milepost-notifications"
"""The name of the connection in pg_stat_activity."""
SEND_INTERVAL_S: Final = 0.05
"""Minimum time between sends: several changes of an operation within it are one notification."""
MAX_COLLECTED: Final = 1_000
"""Changes between two sends that are named. With more, all replicas poll."""
POLL: Final = "*"
"""The payload that makes the other replicas poll."""
MIN_RETRY_S: Final = 0.1
MAX_RETRY_S: Final = 2.0
JOIN_TIMEOUT_S: Final = 2.0
PROBE_INTERVAL_S: Final = 2.0
"""Time without traffic after which the server is asked for a sign of life."""
HANG_TIMEOUT_S: Final = 3.0
"""Time in which a living connection has traffic; one without is half-open, and replaced."""
_PROBE: Final = "SELECT 1"
_NOTIFY: Final = "SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload"
_TOKEN_LENGTH: Final = ID_LENGTH - len(ID_PREFIX)
_IDS_PER_PAYLOAD: Final = 7_900 // _TOKEN_LENGTH
"""PostgreSQL allows less than 8,000 bytes."""


class Notifications:
    """Exchange of changes with the other replicas. Create it on a running event loop."""

    def __init__(
        self,
        engine: Engine,
        *,
        on_notification: Callable[[OperationId], None],
        on_gap: Callable[[], None],
        on_interruption: Callable[[], None],
    ) -> None:
        """Start to connect, in the background.

        Args:
            engine: the engine of a PostgreSQL database.
            on_notification: called on the event loop with an operation that another replica
                changed.
            on_gap: called on the event loop when notifications may have been lost. They arrive
                again.
            on_interruption: called on the event loop when they do not arrive until `on_gap`.
        """
        self._loop = asyncio.get_running_loop()
        self._session = Session(engine)
        self._on_notification = on_notification
        self._on_gap = on_gap
        self._on_interruption = on_interruption
        self._collected: deque[OperationId] = deque(maxlen=MAX_COLLECTED + 1)
        self._is_woken = False
        self._closing = threading.Event()
        self._turns = 0
        self._own_pid = 0
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        self._thread = threading.Thread(
            target=self._run, name="milepost-notifications", daemon=True
        )
        self._thread.start()
        self._watcher = self._loop.call_later(HANG_TIMEOUT_S, self._watch, self._turns)

    def notify(self, operation_id: OperationId) -> None:
        """Notify the other replicas, soon, that the operation has changed."""
        self._collected.append(operation_id)
        if not self._is_woken:
            self._is_woken = True
            self._wake()

    async def close(self) -> None:
        """End the thread and its connection. Polls of the other replicas find unsent changes."""
        self._closing.set()
        self._watcher.cancel()
        self._wake()
        await asyncio.to_thread(self._thread.join, JOIN_TIMEOUT_S / 2)
        if self._thread.is_alive():
            self._session.abort()
            await asyncio.to_thread(self._thread.join, JOIN_TIMEOUT_S / 2)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the pipe is full: the thread wakes anyway
            os.write(self._wake_writer, b"!")

    # --- in the thread ---

    def _run(self) -> None:
        retry_s = MIN_RETRY_S
        while not self._closing.is_set():
            try:
                connection = self._connect()
                retry_s = MIN_RETRY_S
                while not self._closing.is_set():
                    self._exchange(connection)
            except Exception as error:  # noqa: BLE001 - logged; polls go on
                if retry_s == MIN_RETRY_S:  # the first failure since the last connection
                    self._call(self._on_interruption)
                    self._call(self._log_interruption, type(translate(error)).__name__)
                self._session.reset()
                self._closing.wait(retry_s)
                retry_s = min(2 * retry_s, MAX_RETRY_S)
        self._session.reset()

    def _connect(self) -> Any:
        """Return a connection that listens, and report the gap before it."""
        # psycopg's own connection: it keeps notifications that arrive with a result.
        connection: Any = self._session.connection.connection.driver_connection
        connection.execute(f"SET application_name = '{APPLICATION}'")
        connection.execute("SET synchronous_commit = off")  # nothing to lose
        connection.execute(f"LISTEN {CHANNEL}")
        # A pooler gives the driver another process id than that of the server.
        (self._own_pid,) = connection.execute("SELECT pg_backend_pid()").fetchone()
        self._call(self._on_gap)
        return connection

    def _exchange(self, connection: Any) -> None:
        """Wait until something is to be sent or received, and do both."""
        readable = _readable(PROBE_INTERVAL_S, connection.fileno(), self._wake_reader)
        if self._wake_reader in readable:
            os.read(self._wake_reader, 1024)
            self._send_all(connection)
        elif not readable:
            connection.execute(_PROBE)
        self._receive_all(connection)
        self._turns += 1
        if self._wake_reader in readable:
            self._rest(connection)

    def _send_all(self, connection: Any) -> None:
        self._is_woken = False  # first: a change from now on wakes the thread again
        collected: list[OperationId] = []
        with contextlib.suppress(IndexError):
            while len(collected) <= MAX_COLLECTED:
                collected.append(self._collected.popleft())
        if collected:
            # A full deque has dropped some.
            payloads = [POLL] if len(collected) > MAX_COLLECTED else _payloads(set(collected))
            connection.execute(_NOTIFY, (CHANNEL, payloads))

    def _receive_all(self, connection: Any) -> None:
        for notification in connection.notifies(timeout=0):
            if notification.pid == self._own_pid:
                continue
            if notification.payload == POLL:
                self._call(self._on_gap)
            else:
                self._call(self._receive, notification.payload)

    def _rest(self, connection: Any) -> None:
        """Only receive until `SEND_INTERVAL_S` is over; changes are collected meanwhile."""
        end = time.monotonic() + SEND_INTERVAL_S
        while (remaining := end - time.monotonic()) > 0 and not self._closing.is_set():
            if _readable(remaining, connection.fileno()):
                self._receive_all(connection)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *arguments)

    # --- on the event loop ---

    def _watch(self, turns: int) -> None:
        """Abort a connection that made no turn since the last look: its peer may be gone."""
        if self._turns == turns:
            self._session.abort()
        self._watcher = self._loop.call_later(HANG_TIMEOUT_S, self._watch, self._turns)

    def _receive(self, payload: str) -> None:
        for start in range(0, len(payload), _TOKEN_LENGTH):
            self._on_notification(OperationId(ID_PREFIX + payload[start : start + _TOKEN_LENGTH]))

    def _log_interruption(self, error: str) -> None:
        telemetry.log.warning("notifications interrupted", error=error)


def _readable(seconds: float, *descriptors: int) -> set[int]:
    """Return the descriptors with something to read, as soon as there are any."""
    poll = select.poll()  # unlike select, it takes descriptors above 1,023
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(seconds * 1000)}


def _payloads(ids: Iterable[OperationId]) -> list[str]:
    """Return the payloads that name all operations, as few as possible."""
    tokens = [operation_id[len(ID_PREFIX) :] for operation_id in ids]
    return [
        "".join(tokens[start : start + _IDS_PER_PAYLOAD])
        for start in range(0, len(tokens), _IDS_PER_PAYLOAD)
    ]
