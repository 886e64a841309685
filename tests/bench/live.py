"""The measurements of streams and of watches."""

from collections.abc import Callable, Mapping
from typing import Final

from tests.bench import plan
from tests.bench.fan_out import FanOutConnection
from tests.bench.jobs import Tally
from tests.bench.rounds import Reading
from tests.bench.stream_load import StreamConnection
from tests.bench.subjects import GrpcSubject

OPERATIONS_PER_STREAM: Final = 2
"""Number of operations: in a short run their commits on 32 streams equal those of 200 operations in
a long one."""

Measure = Callable[[GrpcSubject, int, float], Reading]


def measure_streams(subject: GrpcSubject, streams: int, seconds: float) -> Reading:
    """Measure workers that report as fast as flow control allows."""
    ids = subject.take(streams * OPERATIONS_PER_STREAM)
    groups = [ids[n::streams] for n in range(streams)]
    tally = Tally()
    connection = StreamConnection(
        subject.server.port, subject.scenarios.heads.stream, groups, tally
    )
    return subject.driven([connection], tally, seconds)


def measure_fan_out(subject: GrpcSubject, watchers: int, seconds: float) -> Reading:
    """Measure the watchers of one operation that changes."""
    (operation_id,) = subject.take(1)
    tally = Tally()
    connection = FanOutConnection(
        subject.server.port, subject.scenarios.heads, operation_id, watchers, tally
    )
    reading = subject.driven([connection], tally, seconds)
    tally.seconds -= connection.opening
    return reading


MEASURES: Final[Mapping[str, Measure]] = {
    plan.STREAM: measure_streams,
    plan.WATCH: measure_fan_out,
}
