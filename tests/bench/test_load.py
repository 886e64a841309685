"""The HTTP/2 load generator counts good replies, and nothing else."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from tests.bench import frames, load
from tests.bench.jobs import Call, Caller, Job, Tally, drive

GOOD = b"\x00\x0bgrpc-status\x010"
BAD = b"\x00\x0bgrpc-status\x0213\x00\x0cgrpc-message\x05bang!"
ENDS = frames.END_STREAM | frames.END_HEADERS

Answer = Callable[[int], bytes]


def one_call() -> Job:
    """A job of one call that makes one transition."""
    yield Call(frames.request_head("/x/Y"), b"request", 1)


def whole(stream: int) -> bytes:
    """A good reply."""
    message = frames.grpc_message(b"reply")
    return (
        frames.frame(frames.HEADERS, frames.END_HEADERS, stream, b"\x88")
        + frames.frame(frames.DATA, 0, stream, message)
        + frames.frame(frames.HEADERS, ENDS, stream, GOOD)
    )


def in_pieces(stream: int) -> bytes:
    """A good reply whose message and trailers are split, the one with padding between."""
    message = frames.grpc_message(b"reply")
    padded = bytes([3]) + message[4:] + b"\0\0\0"
    return (
        frames.frame(frames.HEADERS, frames.END_HEADERS, stream, b"\x88")
        + frames.frame(frames.DATA, 0, stream, message[:4])
        + frames.frame(frames.DATA, frames.PADDED, stream, padded)
        + frames.frame(frames.HEADERS, frames.END_STREAM, stream, GOOD[:6])
        + frames.frame(frames.CONTINUATION, frames.END_HEADERS, stream, GOOD[6:])
    )


def without_message(stream: int) -> bytes:
    """A status that says OK and a message that never came."""
    return frames.frame(frames.HEADERS, ENDS, stream, GOOD)


def refused(stream: int) -> bytes:
    """An error."""
    return frames.frame(frames.HEADERS, ENDS, stream, BAD)


def reset(stream: int) -> bytes:
    """A reset of the stream."""
    return frames.frame(frames.RST_STREAM, 0, stream, (7).to_bytes(4, "big"))


def going_away(_stream: int) -> bytes:
    """The end of the connection."""
    return frames.frame(frames.GOAWAY, 0, 0, bytes(8) + b"too_many_pings")


def _frames(connection: socket.socket) -> Iterator[tuple[int, int, int]]:
    """The kind, the flags and the stream of each frame of the client."""
    with connection.makefile("rb") as stream:
        stream.read(len(frames.PREFACE))
        while header := stream.read(frames.FRAME_HEADER):
            stream.read(int.from_bytes(header[:3], "big"))
            yield header[3], header[4], int.from_bytes(header[5:9], "big")


def _serve(subscriber: socket.socket, answer: Answer, streams: int) -> None:
    while True:
        try:
            connection, _ = subscriber.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection, answer, streams)).start()


def _answer(connection: socket.socket, answer: Answer, streams: int) -> None:
    with closing(connection):
        connection.sendall(frames.settings([(frames.MAX_CONCURRENT_STREAMS, streams)]))
        for kind, flags, stream in _frames(connection):
            if kind == frames.DATA and flags & frames.END_STREAM:
                connection.sendall(answer(stream))


@contextmanager
def server(answer: Answer, streams: int = 100) -> Iterator[int]:
    """Start a server that answers every call the same way; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as subscriber:
        thread = threading.Thread(target=_serve, args=(subscriber, answer, streams))
        thread.start()
        try:
            yield subscriber.getsockname()[1]
        finally:
            subscriber.shutdown(socket.SHUT_RDWR)
            thread.join()


def run(port: int, callers: int, seconds: float = 0.0) -> Tally:
    """Let each caller make a call, and more while there is time."""
    tally = Tally()
    connections = load.connect(port, [Caller(one_call, tally) for _ in range(callers)])
    try:
        drive(connections, tally, seconds)
    finally:
        load.close(connections)
    return tally


@pytest.mark.parametrize("answer", [whole, in_pieces])
def test_good_replies_count(answer):
    """A reply in any number of frames counts, with its payload and its transition."""
    with server(answer) as port:
        tally = run(port, callers=3)
    assert (tally.calls, tally.jobs, tally.transitions) == (3, 3, 3)
    assert tally.payload == 3 * len(b"reply")
    assert not tally.failures


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (without_message, "OK without a message"),
        (refused, "bang!"),
        (reset, "RST_STREAM with error code 7"),
        (going_away, "GOAWAY: too_many_pings"),
    ],
)
def test_everything_else_is_a_failure(answer, reason):
    """A reply that is incomplete or not OK counts as a failure, with the reason."""
    with server(answer) as port:
        tally = run(port, callers=2)
    assert (tally.calls, tally.transitions, tally.failures.total()) == (0, 0, 2)
    assert all(reason in found for found in tally.failures)


def test_the_stream_limit_of_the_server_is_kept():
    """Callers are spread over as many connections as the stream limit of the server requires."""
    tally = Tally()
    with server(whole, streams=10) as port:
        connections = load.connect(port, [Caller(one_call, tally) for _ in range(25)])
        shares = sorted(len(each.callers) for each in connections)  # type: ignore[attr-defined]
        load.close(connections)
    assert shares == [8, 8, 9]


def test_the_window_of_the_server_is_kept():
    """Calls beyond the flow-control window wait for a WINDOW_UPDATE, and none is lost."""
    seen = 0

    def widen(stream: int) -> bytes:
        nonlocal seen
        seen += 1
        return whole(stream) + frames.window_update(0, 12)

    with server(widen) as port:
        tally = Tally()
        (connection,) = load.connect(port, [Caller(one_call, tally) for _ in range(5)])
        connection._send_window = 30  # type: ignore[attr-defined]
        drive([connection], tally, 0.0)
        load.close([connection])
    assert (tally.jobs, seen) == (5, 5)


def test_header_values_of_any_length():
    """A value of 127 bytes or more has its length in several bytes (RFC 7541, 5.1)."""
    head = frames.request_head("/x/Y", [("authorization", "a" * 300)])
    assert b"\x7f\xad\x01" + b"a" * 300 in head
