"""A gRPC load generator that costs 20 to 40 µs a call, so that the server is what saturates.

A client library costs as much as the server it measures; this one writes HTTP/2 by hand. Header
blocks are encoded once, the server is told to compress nothing (header table size 0), and a reply
counts only if it carries a message and `grpc-status: 0`.
"""

import socket
from collections import deque
from collections.abc import Sequence

from tests.bench import frames
from tests.bench.jobs import Call, Caller
from tests.bench.jobs import Connection as ConnectionOfCallers

CALLERS_PER_CONNECTION = 64
_REPLENISH = 1 << 30
_GRPC_PREFIX = 5


class _Stream:
    """One call in flight."""

    __slots__ = ("body", "caller", "head")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.head = b""
        self.body = b""


class Connection:
    """One HTTP/2 connection, whose greeting the server has answered."""

    def __init__(self, port: int) -> None:
        self.busy = 0
        self.streams_allowed = CALLERS_PER_CONNECTION
        self.callers: Sequence[Caller] = ()
        self._next_stream = 1
        self._streams: dict[int, _Stream] = {}
        self._rest = b""
        self._greeted = False
        self._out: list[bytes] = []
        self._backlog: deque[tuple[Caller, Call]] = deque()
        self._send_window = frames.DEFAULT_WINDOW
        self._consumed = 0
        self._open_header = 0
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._greet()
        except BaseException:
            self.socket.close()
            raise

    def begin(self, now: float) -> None:
        """Let every caller make its first call."""
        for caller in self.callers:
            self._call(caller, caller.begin(now))
        self._flush()

    def receive(self, data: bytes, now: float) -> None:
        """Take what arrived, and send what follows from it."""
        if not data:
            self.lose("the server closed the connection")
            return
        buffer = self._rest + data if self._rest else data
        at = 0
        end = len(buffer)
        while end - at >= frames.FRAME_HEADER:
            size = int.from_bytes(buffer[at : at + 3], "big")
            following = at + frames.FRAME_HEADER + size
            if following > end:
                break
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big")
            payload = buffer[at + frames.FRAME_HEADER : following]
            self._take(buffer[at + 3], buffer[at + 4], stream, payload, now)
            at = following
        self._rest = buffer[at:]
        self._flush()

    def lose(self, reason: str) -> None:
        """Fail every call in flight, and make no more."""
        lost = [stream.caller for stream in self._streams.values()]
        lost += [caller for caller, _ in self._backlog]
        self._streams.clear()
        self._backlog.clear()
        for caller in lost:
            caller.refuse(reason, float("inf"))
        self.busy = 0

    def _greet(self) -> None:
        mine = (
            (frames.HEADER_TABLE_SIZE, 0),
            (frames.ENABLE_PUSH, 0),
            (frames.INITIAL_WINDOW_SIZE, frames.LARGEST_WINDOW),
        )
        wider = frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW
        self.socket.sendall(frames.PREFACE + frames.settings(mine) + frames.window_update(0, wider))
        while not self._greeted:
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the server closed the connection at the greeting")
            self.receive(data, 0.0)

    def _call(self, caller: Caller, call: Call) -> None:
        """Send a call, or queue it until the server's window is wide enough again."""
        message = frames.grpc_message(call.body)
        if self._backlog or len(message) > self._send_window:
            self._backlog.append((caller, call))
        else:
            self._send(caller, call.head, message)
        self.busy += 1

    def _send(self, caller: Caller, head: bytes, message: bytes) -> None:
        number = self._next_stream
        self._next_stream = number + 2
        self._streams[number] = _Stream(caller)
        self._send_window -= len(message)
        self._out.append(
            frames.frame(frames.HEADERS, frames.END_HEADERS, number, head)
            + frames.frame(frames.DATA, frames.END_STREAM, number, message)
        )

    def _flush(self) -> None:
        if self._out:
            self.socket.sendall(b"".join(self._out))
            self._out.clear()

    def _take(self, kind: int, flags: int, number: int, payload: bytes, now: float) -> None:
        if kind == frames.DATA:
            self._take_data(flags, number, payload)
        elif kind in {frames.HEADERS, frames.CONTINUATION}:
            self._take_headers(kind, flags, number, payload, now)
        elif kind == frames.RST_STREAM:
            code = int.from_bytes(payload, "big")
            self._finish(number, f"RST_STREAM with error code {code}", now)
        elif not number:
            self._take_control(kind, flags, payload)

    def _take_data(self, flags: int, number: int, payload: bytes) -> None:
        self._consumed += len(payload)
        if self._consumed >= _REPLENISH:
            self._out.append(frames.window_update(0, self._consumed))
            self._consumed = 0
        stream = self._streams.get(number)
        if stream is not None:
            stream.body += _unpadded(payload) if flags & frames.PADDED else payload

    def _take_headers(self, kind: int, flags: int, number: int, payload: bytes, now: float) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        if kind == frames.HEADERS:
            self._open_header = flags
            if flags & frames.PADDED:
                payload = _unpadded(payload)
            stream.head = payload[5:] if flags & frames.PRIORITY else payload
        else:
            stream.head += payload
        if flags & frames.END_HEADERS and self._open_header & frames.END_STREAM:
            status = frames.status_of(stream.head)
            # A message that is cut short must not pass for a reply.
            whole = len(stream.body) == _GRPC_PREFIX + int.from_bytes(stream.body[1:5], "big")
            if status == "0" and whole:
                self._finish(number, "", now)
            elif status == "0":
                self._finish(number, "OK without a message", now)
            else:
                self._finish(number, frames.readable(stream.head), now)

    def _finish(self, number: int, failure: str, now: float) -> None:
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        caller = stream.caller
        self.busy -= 1
        if failure:
            following = caller.refuse(failure, now)
        else:
            following = caller.reply(stream.body[_GRPC_PREFIX:], now)
        if following is not None:
            self._call(caller, following)

    def _take_control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == frames.SETTINGS and not flags & frames.ACK:
            told = frames.read_settings(payload)
            self.streams_allowed = min(
                self.streams_allowed,
                told.get(frames.MAX_CONCURRENT_STREAMS, CALLERS_PER_CONNECTION),
            )
            self._greeted = True
            self._out.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
        elif kind == frames.PING and not flags & frames.ACK:
            self._out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.WINDOW_UPDATE:
            self._send_window += int.from_bytes(payload, "big")
            self._send_backlog()
        elif kind == frames.GOAWAY:
            self.lose(f"GOAWAY: {frames.readable(payload[8:]) or 'no reason given'}")

    def _send_backlog(self) -> None:
        while self._backlog:
            caller, call = self._backlog[0]
            message = frames.grpc_message(call.body)
            if len(message) > self._send_window:
                return
            self._backlog.popleft()
            self._send(caller, call.head, message)


def _unpadded(payload: bytes) -> bytes:
    return payload[1 : len(payload) - payload[0]]


def connect(port: int, callers: Sequence[Caller]) -> list[ConnectionOfCallers]:
    """As many connections as the callers need, who are spread evenly over them."""
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
    """The server sees that the callers are gone."""
    for connection in connections:
        connection.socket.close()
