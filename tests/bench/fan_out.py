"""Many watchers of one operation: a caller updates it again as soon as all have the last change.

Watchers and caller share a connection, so that one turn of the load sees all of them.
"""

from typing import Final

from tests.bench import frames, messages
from tests.bench.jobs import Tally
from tests.bench.wire import Wire

_CANCEL: Final = (8).to_bytes(4, "big")


class FanOutConnection(Wire):
    """The watchers of one operation and its updater. A job is one change sent to one watcher."""

    def __init__(
        self, port: int, heads: messages.Heads, operation_id: str, watchers: int, tally: Tally
    ) -> None:
        self._heads = heads
        self._id = operation_id
        self._tally = tally
        self._watching = range(1, 2 * watchers, 2)
        self._parts = dict.fromkeys(self._watching, b"")
        self._outstanding = set(self._watching)
        self._changes = 0
        self._change = 0
        """The stream of the update call; 0 when it is answered."""
        self._since = 0.0
        self.opening = 0.0
        """Seconds until every watcher has the initial state; they are not measured."""
        super().__init__(port)

    def begin(self, now: float) -> None:
        """Open all watches; the first change follows when each has the initial state."""
        self._since = now
        self.busy = len(self._watching)
        request = messages.watch_request(self._id)
        for number in self._watching:
            self._call(number, self._heads.watch, request)
        self.flush()

    def lose(self, reason: str) -> None:
        """Count a failure for every open watch, and end the measurement."""
        self._tally.failures[reason] += self.busy
        self.busy = 0

    def take_data(self, number: int, payload: bytes, now: float) -> None:
        """Take messages of a watch."""
        if number not in self._parts:
            return  # the answer to the change; its end says whether it is good
        received, self._parts[number] = frames.split_messages(self._parts[number] + payload)
        for message in received:
            self._count(number, message)
        if received:
            self._go_on(now)

    def take_end(self, number: int, failure: str, now: float) -> None:
        """Take the answer to the change. A watch that ends is a failure."""
        if number != self._change or failure:
            self.lose(failure or "a watch has ended")
            return
        self._change = 0
        self._tally.transitions += 1
        self._go_on(now)

    def _count(self, number: int, message: bytes) -> None:
        tally = self._tally
        if self._id.encode() not in message:
            tally.failures["a watch has another operation"] += 1
        elif number not in self._outstanding:
            tally.failures["a watch has one change twice"] += 1
        elif self._changes:
            tally.calls += 1
            tally.jobs += 1
            tally.payload += len(message)
        self._outstanding.discard(number)

    def _go_on(self, now: float) -> None:
        if self._outstanding or self._change or not self.busy:
            return
        if self._changes:
            self._tally.latencies.append(now - self._since)
        else:
            self.opening = now - self._since
            self._tally.end += self.opening
        if now >= self._tally.end:
            self._leave()
            return
        self._changes += 1
        self._change = 2 * (len(self._watching) + self._changes) - 1
        self._outstanding = set(self._watching)
        self._since = now
        self._call(self._change, self._heads.update, messages.update_request(self._id))

    def _leave(self) -> None:
        for number in self._watching:
            self.out.append(frames.frame(frames.RST_STREAM, 0, number, _CANCEL))
        self.busy = 0

    def _call(self, number: int, head: bytes, request: bytes) -> None:
        message = frames.grpc_message(request)
        self.window -= len(message)
        self.out.append(
            frames.frame(frames.HEADERS, frames.END_HEADERS, number, head)
            + frames.frame(frames.DATA, frames.END_STREAM, number, message)
        )
