"""Who waits for which operation on this replica, and what wakes them.

A wake-up is a hint and carries nothing: whoever is woken reads what has become of the operation.
So hints may be merged, sent twice, or come for nothing; one that is lost only costs time, because
everybody also looks by itself now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from milepost.domain.operation import OperationId


class Listener:
    """One who waits for changes of one operation."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Let `wait` return, now or when it is called next."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Return true at the first hint since the last call, or false after `seconds`."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Changes:
    """The listeners of one replica, by operation."""

    def __init__(self) -> None:
        """Begin with nobody listening."""
        self._listeners: dict[OperationId, set[Listener]] = {}

    @contextlib.contextmanager
    def listen(self, operation_id: OperationId) -> Iterator[Listener]:
        """Wake the listener at every change of the operation from now on."""
        listener = Listener()
        group = self._listeners.setdefault(operation_id, set())
        group.add(listener)
        try:
            yield listener
        finally:
            group.discard(listener)
            if not group and self._listeners.get(operation_id) is group:
                del self._listeners[operation_id]

    def join(self, operation_id: OperationId, listener: Listener) -> None:
        """Wake this listener too at every change of the operation, until it leaves."""
        self._listeners.setdefault(operation_id, set()).add(listener)

    def leave(self, operation_id: OperationId, listener: Listener) -> None:
        """Do not wake this listener any more."""
        group = self._listeners.get(operation_id, set())
        group.discard(listener)
        if not group:
            self._listeners.pop(operation_id, None)

    def publish(self, operation_id: OperationId) -> None:
        """Wake whoever listens to this operation."""
        for listener in self._listeners.get(operation_id, ()):
            listener.wake()

    def publish_all(self) -> None:
        """Wake everybody: hints may have been lost."""
        for group in self._listeners.values():
            for listener in group:
                listener.wake()
