"""Hints between the replicas on one PostgreSQL database: which operations have just moved.

One connection, in a thread of its own, says and hears them with NOTIFY and LISTEN. They are no part
of any transition: a commit that carries a NOTIFY takes a lock of the whole server until it is
durable, so moves that notified would queue up behind each other. Here what has moved is collected,
and told a few times a second, in a transaction that need not become durable.

A hint may be lost, with the connection or by being one too many. Then everybody looks, and in any
case there is a poll behind it.
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

CHANNEL: Final = "milepost_moved"
APPLICATION: Final = "milepost-hints"
"""How the server's list of sessions shows the connection."""
BEAT_S: Final = 0.05
"""At most so often something is told: what moves again and again is one hint."""
MOST_COLLECTED: Final = 1_000
"""Moves between two beats that are told one by one. With more, everybody is told to look."""
LOOK: Final = "*"
"""The hint that everybody should look."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0
JOIN_S: Final = 2.0
_TELL: Final = "SELECT pg_notify(%s, hint) FROM unnest(%s::text[]) AS hint"
_TOKEN: Final = ID_LENGTH - len(ID_PREFIX)
_IDS_PER_HINT: Final = 7_900 // _TOKEN
"""A payload has less than 8,000 bytes."""


class Notifications:
    """Tells the other replicas what moved here, and hears from them. Lives on an event loop."""

    def __init__(
        self,
        engine: Engine,
        *,
        on_notification: Callable[[OperationId], None],
        on_gap: Callable[[], None],
    ) -> None:
        """Begin to connect, in the background.

        Args:
            engine: of a PostgreSQL database.
            on_notification: called on the event loop with an operation that changed elsewhere.
            on_gap: called on the event loop when hints may have been lost.
        """
        self._loop = asyncio.get_running_loop()
        self._session = Session(engine)
        self._on_notification = on_notification
        self._on_gap = on_gap
        self._collected: deque[OperationId] = deque(maxlen=MOST_COLLECTED + 1)
        self._is_woken = False
        self._closing = threading.Event()
        self._ear, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        self._thread = threading.Thread(target=self._run, name="milepost-hints", daemon=True)
        self._thread.start()

    def tell(self, operation_id: OperationId) -> None:
        """Tell the other replicas, soon, that the operation has moved. Costs next to nothing."""
        self._collected.append(operation_id)
        if not self._is_woken:
            self._is_woken = True
            self._ring()

    async def close(self) -> None:
        """End the thread and its connection. What was not told yet is found by polling."""
        self._closing.set()
        self._ring()
        await asyncio.to_thread(self._thread.join, JOIN_S / 2)
        if self._thread.is_alive():
            self._session.abort()
            await asyncio.to_thread(self._thread.join, JOIN_S / 2)

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it is awake
            os.write(self._bell, b"!")

    # What follows runs in the thread.

    def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._closing.is_set():
            try:
                connection = self._connect()
                pause = FIRST_PAUSE_S
                while not self._closing.is_set():
                    self._turn(connection)
            except Exception as error:  # noqa: BLE001 - whatever it is, the poll goes on
                self._call(self._complain, type(translate(error)).__name__)
                self._session.reset()
                self._closing.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        self._session.reset()

    def _connect(self) -> Any:
        """Return a connection that listens. What moved before it did must be looked for."""
        # psycopg's own: it collects what arrives together with an answer.
        connection: Any = self._session.connection.connection.driver_connection
        connection.execute(f"SET application_name = '{APPLICATION}'")
        connection.execute("SET synchronous_commit = off")  # a hint need not outlive the server
        connection.execute(f"LISTEN {CHANNEL}")
        self._call(self._on_gap)
        return connection

    def _turn(self, connection: Any) -> None:
        """Wait until there is something to tell or to hear, and do both."""
        readable, _, _ = select.select([connection.fileno(), self._ear], [], [])
        if self._ear in readable:
            os.read(self._ear, 1024)
            self._tell_all(connection)
        self._hear_all(connection)
        if self._ear in readable:
            self._rest(connection)

    def _tell_all(self, connection: Any) -> None:
        self._is_woken = False  # before the collection: what comes from now on rings again
        collected: list[OperationId] = []
        with contextlib.suppress(IndexError):
            while len(collected) <= MOST_COLLECTED:
                collected.append(self._collected.popleft())
        if collected:
            # A full collection has thrown some away.
            notifications = [LOOK] if len(collected) > MOST_COLLECTED else _hints(set(collected))
            connection.execute(_TELL, (CHANNEL, notifications))

    def _hear_all(self, connection: Any) -> None:
        myself = connection.info.backend_pid
        for hint in connection.notifies(timeout=0):
            if hint.pid == myself:
                continue
            if hint.payload == LOOK:
                self._call(self._on_gap)
            else:
                self._call(self._hear, hint.payload)

    def _rest(self, connection: Any) -> None:
        """Go on hearing until the beat is over; what is to be told is collected meanwhile."""
        end = time.monotonic() + BEAT_S
        while (left := end - time.monotonic()) > 0 and not self._closing.is_set():
            if select.select([connection.fileno()], [], [], left)[0]:
                self._hear_all(connection)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(function, *arguments)

    # And this on the loop again.

    def _hear(self, hint: str) -> None:
        for start in range(0, len(hint), _TOKEN):
            self._on_notification(OperationId(ID_PREFIX + hint[start : start + _TOKEN]))

    def _complain(self, error: str) -> None:
        telemetry.log.warning("no hints from other replicas", error=error)


def _hints(ids: Iterable[OperationId]) -> list[str]:
    """Return as few hints as can name all operations."""
    tokens = [operation_id[len(ID_PREFIX) :] for operation_id in ids]
    return [
        "".join(tokens[start : start + _IDS_PER_HINT])
        for start in range(0, len(tokens), _IDS_PER_HINT)
    ]
