"""Counts of the load of streams and watches."""

import pytest

from milepost.gen.milepost.v1 import worker_service_pb2 as pb
from tests.bench import frames, load, messages
from tests.bench.fan_out import FanOutConnection
from tests.bench.jobs import Tally, drive
from tests.bench.preparation import FIRST_REVISION
from tests.bench.stream_load import IN_A_ROW, StreamConnection
from tests.bench.test_load import BAD, ENDS, GOOD, Answer, server

HEADS = messages.Heads("secret")
ID = messages.ECHO_ID
WATCHERS = 3
CHANGE = 2 * WATCHERS + 1
"""The stream of the first change."""
GREETED = frames.END_HEADERS


def answered(stream: int, *items: pb.StreamProgressResponse, end: bytes = GOOD) -> bytes:
    """Encode a stream with these answers, the last in two pieces, and its end."""
    data = b"".join(frames.grpc_message(item.SerializeToString()) for item in items)
    return (
        frames.frame(frames.HEADERS, GREETED, stream, b"\x88")
        + frames.frame(frames.DATA, 0, stream, data[:-3])
        + frames.frame(frames.DATA, 0, stream, data[-3:])
        + frames.frame(frames.HEADERS, ENDS, stream, end)
    )


def acknowledged(stream: int) -> bytes:
    """Acknowledge two commits, and end with OK."""
    first = pb.Acknowledgement(operation_id=ID, revision=FIRST_REVISION + 1)
    second = pb.Acknowledgement(operation_id=ID, revision=FIRST_REVISION + 2)
    return answered(
        stream,
        pb.StreamProgressResponse(acknowledgement=first),
        pb.StreamProgressResponse(acknowledgement=second),
    )


def refused(stream: int) -> bytes:
    """Refuse an update."""
    error = pb.UpdateError(operation_id=ID, reason="PROGRESS_DECREASE")
    return answered(stream, pb.StreamProgressResponse(error=error))


def broken(stream: int) -> bytes:
    """End a stream with an error."""
    return answered(stream, end=BAD)


def streamed(answer: Answer, streams: int) -> Tally:
    """Send one burst on each stream."""
    tally = Tally()
    with server(answer) as port:
        connection = StreamConnection(port, HEADS.stream, [[ID]] * streams, tally)
        try:
            drive([connection], tally, 1e-9)
        finally:
            load.close([connection])
    return tally


def test_messages_of_a_stream_count():
    """A stream that ends with OK counts all messages; its last revision counts transitions."""
    tally = streamed(acknowledged, 2)
    assert (tally.jobs, tally.calls, tally.transitions) == (2 * IN_A_ROW, 4, 4)
    assert len(tally.latencies) == 2
    assert not tally.failures


@pytest.mark.parametrize(("answer", "reason"), [(refused, "PROGRESS_DECREASE"), (broken, "bang!")])
def test_refusals_and_bad_ends_are_failures(answer, reason):
    """A refused update, and a stream that ends with an error, void the run."""
    assert reason in str(streamed(answer, 1).failures)


def sent(stream: int, times: int = 1, what: str = ID) -> bytes:
    """Send the operation to a watcher."""
    return frames.frame(frames.DATA, 0, stream, frames.grpc_message(what.encode()) * times)


def changed(stream: int, times: int = 1) -> bytes:
    """Begin a watch, or send a change to all watchers and answer the update."""
    if stream < CHANGE:
        return frames.frame(frames.HEADERS, GREETED, stream, b"\x88") + sent(stream)
    watchers = b"".join(sent(number, times) for number in range(1, CHANGE, 2))
    return watchers + frames.frame(frames.HEADERS, ENDS, stream, GOOD)


def sent_twice(stream: int) -> bytes:
    """Send every change twice."""
    return changed(stream, times=2)


def another(stream: int) -> bytes:
    """Send another operation."""
    return changed(stream) if stream >= CHANGE else sent(stream, what="another")


def watched(answer: Answer) -> tuple[Tally, FanOutConnection]:
    """Watch and change one operation for a moment."""
    tally = Tally()
    with server(answer) as port:
        connection = FanOutConnection(port, HEADS, ID, WATCHERS, tally)
        try:
            drive([connection], tally, 0.01)
        finally:
            load.close([connection])
    return tally, connection


def test_changes_sent_to_watchers_count():
    """Each change sent to each watcher is one job; the initial state does not count."""
    tally, connection = watched(changed)
    assert tally.transitions > 0
    assert tally.jobs == WATCHERS * tally.transitions
    assert len(tally.latencies) == tally.transitions
    assert connection.opening > 0
    assert not tally.failures


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(sent_twice, "one change twice"), (another, "another operation")],
)
def test_wrong_messages_of_a_watch_are_failures(answer, reason):
    """A change that is sent twice, or of another operation, voids the run."""
    assert reason in str(watched(answer)[0].failures)
