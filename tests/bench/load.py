"""A gRPC load generator that costs 20 to 40 µs a call, so that the server saturates first.

A client library costs as much as the server it measures; this one encodes HTTP/2 itself, and a
reply counts only if it carries a message and `grpc-status: 0`.
"""

from collections import deque
from collections.abc import Sequence

from tests.bench import frames
from tests.bench.jobs import Call, Caller
from tests.bench.jobs import Connection as ConnectionOfCallers
from tests.bench.wire import Wire


class _Stream:
    """One call in flight."""

    __slots__ = ("body", "caller")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.body = b""


class Connection(Wire):
    """One connection of callers, each with a unary call in flight."""

    def __init__(self, port: int) -> None:
        self.callers: Sequence[Caller] = ()
        self._next_stream = 1
        self._streams: dict[int, _Stream] = {}
        self._backlog: deque[tuple[Caller, Call]] = deque()
        super().__init__(port)

    def begin(self, now: float) -> None:
        """Make the first call of every caller."""
        for caller in self.callers:
            self._call(caller, caller.begin(now))
        self.flush()

    def lose(self, reason: str) -> None:
        """Count every call in flight as failed, and make no more."""
        lost = [stream.caller for stream in self._streams.values()]
        lost += [caller for caller, _ in self._backlog]
        self._streams.clear()
        self._backlog.clear()
        for caller in lost:
            caller.refuse(reason, float("inf"))
        self.busy = 0

    def take_data(self, number: int, payload: bytes, _now: float) -> None:
        """Take a part of a reply."""
        stream = self._streams.get(number)
        if stream is not None:
            stream.body += payload

    def take_end(self, number: int, failure: str, now: float) -> None:
        """Take the end of a call, and make the next one of its caller."""
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        caller, body = stream.caller, stream.body
        self.busy -= 1
        # A message that is cut short must not pass for a reply.
        if not failure and len(body) != frames.GRPC_PREFIX + int.from_bytes(body[1:5], "big"):
            failure = "OK without a message"
        if failure:
            following = caller.refuse(failure, now)
        else:
            following = caller.reply(body[frames.GRPC_PREFIX :], now)
        if following is not None:
            self._call(caller, following)

    def widened(self, number: int, _increment: int, _now: float) -> None:
        """Send calls that waited for the window."""
        while not number and self._backlog:
            caller, call = self._backlog[0]
            message = frames.grpc_message(call.body)
            if len(message) > self.window:
                return
            self._backlog.popleft()
            self._send(caller, call.head, message)

    def _call(self, caller: Caller, call: Call) -> None:
        """Send a call, or queue it until the server's window is wide enough again."""
        message = frames.grpc_message(call.body)
        if self._backlog or len(message) > self.window:
            self._backlog.append((caller, call))
        else:
            self._send(caller, call.head, message)
        self.busy += 1

    def _send(self, caller: Caller, head: bytes, message: bytes) -> None:
        number = self._next_stream
        self._next_stream = number + 2
        self._streams[number] = _Stream(caller)
        self.window -= len(message)
        self.out.append(
            frames.frame(frames.HEADERS, frames.END_HEADERS, number, head)
            + frames.frame(frames.DATA, frames.END_STREAM, number, message)
        )


def connect(port: int, callers: Sequence[Caller]) -> list[ConnectionOfCallers]:
    """Open as many connections as the callers need, and spread the callers evenly."""
    first = Connection(port)
    connections = [first]
    try:
        while sum(each.streams_allowed for each in connections) < len(callers):
            connections.append(Connection(port))
    except BaseException:
        close(connections)
        raise
    for number, connection in enumerate(connections):
        connection.callers = callers[number :: len(connections)]
    return list(connections)


def close(connections: Sequence[ConnectionOfCallers]) -> None:
    """Close the connections."""
    for connection in connections:
        connection.socket.close()
