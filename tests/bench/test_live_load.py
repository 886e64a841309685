"""Streams and watches count what was taken and told, and nothing else."""

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
    """A stream with these answers, the last of them in two pieces, and its end."""
    data = b"".join(frames.grpc_message(item.SerializeToString()) for item in items)
    return (
        frames.frame(frames.HEADERS, GREETED, stream, b"\x88")
        + frames.frame(frames.DATA, 0, stream, data[:-3])
        + frames.frame(frames.DATA, 0, stream, data[-3:])
        + frames.frame(frames.HEADERS, ENDS, stream, end)
    )


def acknowledged(stream: int) -> bytes:
    """Two commits, and a good end."""
    first = pb.Acknowledgement(operation_id=ID, revision=FIRST_REVISION + 1)
    second = pb.Acknowledgement(operation_id=ID, revision=FIRST_REVISION + 2)
    return answered(
        stream,
        pb.StreamProgressResponse(acknowledgement=first),
        pb.StreamProgressResponse(acknowledgement=second),
    )


def refused(stream: int) -> bytes:
    """An update that was not taken."""
    error = pb.UpdateError(operation_id=ID, reason="PROGRESS_DECREASE")
    return answered(stream, pb.StreamProgressResponse(error=error))


def broken(stream: int) -> bytes:
    """A stream that ends badly."""
    return answered(stream, end=BAD)


def streamed(answer: Answer, streams: int) -> Tally:
    """Each stream reports as often as fits into no time: one burst."""
    tally = Tally()
    with server(answer) as port:
        connection = StreamConnection(port, HEADS.stream, [[ID]] * streams, tally)
        try:
            drive([connection], tally, 1e-9)
        finally:
            load.close([connection])
    return tally


def test_what_a_stream_has_taken_counts():
    """Every message of a stream that ended well was taken; the last revision says of what moves."""
    tally = streamed(acknowledged, 2)
    assert (tally.jobs, tally.calls, tally.transitions) == (2 * IN_A_ROW, 4, 4)
    assert len(tally.latencies) == 2
    assert not tally.failures


@pytest.mark.parametrize(("answer", "reason"), [(refused, "PROGRESS_DECREASE"), (broken, "bang!")])
def test_refusals_and_bad_ends_are_failures(answer, reason):
    """A refused update, and a stream that ends badly, void the run."""
    assert reason in str(streamed(answer, 1).failures)


def told(stream: int, times: int = 1, what: str = ID) -> bytes:
    """A watcher is told of the operation."""
    return frames.frame(frames.DATA, 0, stream, frames.grpc_message(what.encode()) * times)


def changed(stream: int, times: int = 1) -> bytes:
    """A watch begins; a change is told to all who watch, and answered."""
    if stream < CHANGE:
        return frames.frame(frames.HEADERS, GREETED, stream, b"\x88") + told(stream)
    watchers = b"".join(told(number, times) for number in range(1, CHANGE, 2))
    return watchers + frames.frame(frames.HEADERS, ENDS, stream, GOOD)


def told_twice(stream: int) -> bytes:
    """Every change is told twice."""
    return changed(stream, times=2)


def another(stream: int) -> bytes:
    """Somebody else's operation is told."""
    return changed(stream) if stream >= CHANGE else told(stream, what="another")


def watched(answer: Answer) -> tuple[Tally, FanOutConnection]:
    """One operation is watched and changed for a moment."""
    tally = Tally()
    with server(answer) as port:
        connection = FanOutConnection(port, HEADS, ID, WATCHERS, tally)
        try:
            drive([connection], tally, 0.01)
        finally:
            load.close([connection])
    return tally, connection


def test_what_watchers_are_told_counts():
    """Each watcher told of each change is one job; how things stood at first is none."""
    tally, connection = watched(changed)
    assert tally.transitions > 0
    assert tally.jobs == WATCHERS * tally.transitions
    assert len(tally.latencies) == tally.transitions
    assert connection.opening > 0
    assert not tally.failures


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(told_twice, "told twice"), (another, "the operation is not in what was told")],
)
def test_what_is_told_wrongly_is_a_failure(answer, reason):
    """A change that is told twice, or of another operation, voids the run."""
    assert reason in str(watched(answer)[0].failures)
