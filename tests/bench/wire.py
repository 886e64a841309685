"""One HTTP/2 connection: the common part of all kinds of load.

Header blocks are encoded once, and the server may not compress headers (table size 0).
Received frames are passed to the methods that each kind of load overrides.
"""

import socket

from tests.bench import frames

STREAMS_PER_CONNECTION = 64
_REPLENISH = 1 << 30


class Wire:
    """One connection after the HTTP/2 preface."""

    def __init__(self, port: int) -> None:
        self.busy = 0
        self.streams_allowed = STREAMS_PER_CONNECTION
        self.window = frames.DEFAULT_WINDOW
        """Flow-control window of the connection in bytes."""
        self.stream_window = frames.DEFAULT_WINDOW
        """Flow-control window of a new stream in bytes."""
        self.out: list[bytes] = []
        """Frames that the next flush sends."""
        self._rest = b""
        self._greeted = False
        self._consumed = 0
        self._head = b""
        self._head_flags = 0
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._greet()
        except BaseException:
            self.socket.close()
            raise

    # --- overridden by each kind of load ---

    def begin(self, now: float) -> None:
        """Make the first calls."""
        raise NotImplementedError

    def lose(self, reason: str) -> None:
        """Count every call in flight as failed, and make no more."""
        raise NotImplementedError

    def take_data(self, number: int, payload: bytes, now: float) -> None:
        """Take a part of an answer."""
        raise NotImplementedError

    def take_end(self, number: int, failure: str, now: float) -> None:
        """Take the end of a stream; an empty `failure` means OK."""
        raise NotImplementedError

    def widened(self, number: int, increment: int, now: float) -> None:
        """Take a wider window of one stream, or of the connection (0)."""

    def resized(self, change: int) -> None:
        """Take a change of the window of every open stream."""

    # --- common to all ---

    def receive(self, data: bytes, now: float) -> None:
        """Take received bytes, and send the answers to them."""
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
        self.flush()

    def flush(self) -> None:
        """Send all queued frames."""
        if self.out:
            self.socket.sendall(b"".join(self.out))
            self.out.clear()

    def _greet(self) -> None:
        mine = (
            (frames.HEADER_TABLE_SIZE, 0),
            (frames.ENABLE_PUSH, 0),
            (frames.INITIAL_WINDOW_SIZE, frames.MAX_WINDOW),
        )
        wider = frames.MAX_WINDOW - frames.DEFAULT_WINDOW
        self.socket.sendall(frames.PREFACE + frames.settings(mine) + frames.window_update(0, wider))
        while not self._greeted:
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the server closed the connection at the greeting")
            self.receive(data, 0.0)

    def _take(self, kind: int, flags: int, number: int, payload: bytes, now: float) -> None:
        if kind == frames.DATA:
            self._consume(len(payload))
            self.take_data(number, _unpadded(payload) if flags & frames.PADDED else payload, now)
        elif kind in {frames.HEADERS, frames.CONTINUATION}:
            self._take_headers(kind, flags, number, payload, now)
        elif kind == frames.RST_STREAM:
            code = int.from_bytes(payload, "big")
            self.take_end(number, f"RST_STREAM with error code {code}", now)
        elif kind == frames.WINDOW_UPDATE:
            increment = int.from_bytes(payload, "big")
            if not number:
                self.window += increment
            self.widened(number, increment, now)
        elif not number:
            self._take_control(kind, flags, payload)

    def _consume(self, size: int) -> None:
        self._consumed += size
        if self._consumed >= _REPLENISH:
            self.out.append(frames.window_update(0, self._consumed))
            self._consumed = 0

    def _take_headers(self, kind: int, flags: int, number: int, payload: bytes, now: float) -> None:
        if kind == frames.HEADERS:
            self._head_flags = flags
            if flags & frames.PADDED:
                payload = _unpadded(payload)
            self._head = payload[5:] if flags & frames.PRIORITY else payload
        else:
            self._head += payload
        if flags & frames.END_HEADERS and self._head_flags & frames.END_STREAM:
            well = frames.status_of(self._head) == "0"
            self.take_end(number, "" if well else frames.readable(self._head), now)

    def _take_control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == frames.SETTINGS and not flags & frames.ACK:
            self._take_settings(frames.read_settings(payload))
        elif kind == frames.PING and not flags & frames.ACK:
            self.out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.GOAWAY:
            self.lose(f"GOAWAY: {frames.readable(payload[8:]) or 'no reason given'}")

    def _take_settings(self, values: dict[int, int]) -> None:
        self.streams_allowed = min(
            self.streams_allowed, values.get(frames.MAX_CONCURRENT_STREAMS, STREAMS_PER_CONNECTION)
        )
        size = values.get(frames.INITIAL_WINDOW_SIZE, self.stream_window)
        change, self.stream_window = size - self.stream_window, size
        self._greeted = True
        self.out.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if change:
            self.resized(change)


def _unpadded(payload: bytes) -> bytes:
    return payload[1 : len(payload) - payload[0]]
