"""Many watch one operation, and one caller moves it on: as soon as all were told, again.

Watchers and caller share a connection, so that one turn of the load sees all of them.
"""

from typing import Final

from tests.bench import frames, messages
from tests.bench.jobs import Tally
from tests.bench.wire import Wire

_CANCEL: Final = (8).to_bytes(4, "big")


class FanOutConnection(Wire):
    """The watchers of one operation, and who moves it. A job is one watcher told of one change."""

    def __init__(
        self, port: int, heads: messages.Heads, operation_id: str, watchers: int, tally: Tally
    ) -> None:
        self._heads = heads
        self._id = operation_id
        self._tally = tally
        self._watching = range(1, 2 * watchers, 2)
        self._parts = dict.fromkeys(self._watching, b"")
        self._untold = set(self._watching)
        self._changes = 0
        self._change = 0
        """The call that moves the operation; 0 when it is answered."""
        self._since = 0.0
        self.opening = 0.0
        """Seconds until everybody knew how things stood, which are not measured."""
        super().__init__(port)

    def begin(self, now: float) -> None:
        """Everybody watches; the first change follows when all know how things stand."""
        self._since = now
        self.busy = len(self._watching)
        request = messages.watch_request(self._id)
        for number in self._watching:
            self._call(number, self._heads.watch, request)
        self.flush()

    def lose(self, reason: str) -> None:
        """Nobody is told anything any more."""
        self._tally.failures[reason] += self.busy
        self.busy = 0

    def take_data(self, number: int, payload: bytes, now: float) -> None:
        """Somebody is told how the operation stands now."""
        if number not in self._parts:
            return  # the answer to the change; its end says whether it is good
        told, self._parts[number] = frames.split_messages(self._parts[number] + payload)
        for message in told:
            self._tell(number, message)
        if told:
            self._go_on(now)

    def take_end(self, number: int, failure: str, now: float) -> None:
        """The change was answered. No watch ends by itself."""
        if number != self._change or failure:
            self.lose(failure or "a watch has ended")
            return
        self._change = 0
        self._tally.transitions += 1
        self._go_on(now)

    def _tell(self, number: int, message: bytes) -> None:
        tally = self._tally
        if self._id.encode() not in message:
            tally.failures["the operation is not in what was told"] += 1
        elif number not in self._untold:
            tally.failures["told twice of one change"] += 1
        elif self._changes:
            tally.calls += 1
            tally.jobs += 1
            tally.payload += len(message)
        self._untold.discard(number)

    def _go_on(self, now: float) -> None:
        if self._untold or self._change or not self.busy:
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
        self._untold = set(self._watching)
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
