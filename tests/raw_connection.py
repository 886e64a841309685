"""One raw connection to a gRPC server, for frames that no client library sends."""

import socket
import time
from types import TracebackType
from typing import Self

from tests.bench import frames

TIMEOUT_S = 10.0


class RawConnection:
    """An HTTP/2 connection after its preface. Use it in a `with` block.

    Args:
        address: HOST:PORT of the server.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        self.received = b""
        self._streams = 0
        self.socket.sendall(frames.PREFACE + frames.settings(()))

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.socket.close()

    def open_call(self, method: str, *metadata: tuple[str, str], body: bytes | None = None) -> None:
        """Open a call, and send its request unless it is None."""
        number = 2 * self._streams + 1
        self._streams += 1
        head = frames.request_head(f"/{method}", metadata)
        out = frames.frame(frames.HEADERS, frames.END_HEADERS, number, head)
        if body is not None:
            message = frames.grpc_message(body)
            out += frames.frame(frames.DATA, frames.END_STREAM, number, message)
        self.socket.sendall(out)

    def ping(self) -> None:
        """Send a ping."""
        self.socket.sendall(frames.frame(frames.PING, 0, 0, bytes(8)))

    def go_away(self, code: int, debug_data: bytes) -> None:
        """Send a GOAWAY."""
        payload = bytes(4) + code.to_bytes(4, "big") + debug_data
        self.socket.sendall(frames.frame(frames.GOAWAY, 0, 0, payload))

    def read_for(self, seconds: float) -> bytes:
        """Return all that has been received, after so many seconds or the end."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                break
            except ConnectionError:
                data = b""
            if not data:
                break
            self.received += data
        return self.received
