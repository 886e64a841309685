"""Closed-loop callers: each has one call in flight, and makes the next after the reply.

A job is a generator: it yields calls, is sent the payload of each reply, and ends. A read is a job
of one call, a full life is one of fourteen. Callers repeat jobs until the time is over, and finish
the job that they began, so every call that was sent is counted.
"""

import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

REPLY_TIMEOUT_S = 15.0
"""Seconds without any reply after which the calls in flight fail."""


class Call(NamedTuple):
    """One encoded request."""

    head: bytes
    """The encoded headers, made once for each method."""
    body: bytes
    transitions: int = 0
    """Growth of the operation's revision by a good reply."""


Job = Generator[Call, bytes, None]
Source = Callable[[], Job]


class WrongReplyError(Exception):
    """A reply is not the answer to the call."""


@dataclass(slots=True)
class Tally:
    """The counts and latencies of one measurement."""

    calls: int = 0
    jobs: int = 0
    transitions: int = 0
    """Acknowledged transitions; the revisions in the database must grow by the same number."""
    payload: int = 0
    """Bytes of all replies."""
    end: float = 0.0
    """Time of `time.perf_counter` after which no job begins."""
    seconds: float = 0.0
    spent: float = 0.0
    """CPU seconds of the callers."""
    latencies: list[float] = field(default_factory=list)
    """Duration of each job in seconds."""
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Return the jobs done per second."""
        return self.jobs / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float:
        """Return the latency in milliseconds that `share` of the jobs did not exceed."""
        if not self.latencies:
            return 0.0
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


class Caller:
    """Does one job after the other until the end of the measurement."""

    __slots__ = ("_call", "_job", "_since", "_source", "_tally")

    _job: Job
    _call: Call
    _since: float

    def __init__(self, source: Source, tally: Tally) -> None:
        self._source = source
        self._tally = tally

    def begin(self, now: float) -> Call:
        """Start a job; return its first call."""
        self._since = now
        self._job = self._source()
        self._call = next(self._job)
        return self._call

    def reply(self, payload: bytes, now: float) -> Call | None:
        """Take the reply to the call in flight; return the next call, or None at the end."""
        tally = self._tally
        try:
            following = self._job.send(payload)
        except StopIteration:
            self._acknowledge(payload)
            tally.jobs += 1
            tally.latencies.append(now - self._since)
            return self.begin(now) if now < tally.end else None
        except WrongReplyError as error:
            return self.refuse(str(error), now)
        self._acknowledge(payload)
        self._call = following
        return following

    def refuse(self, reason: str, now: float) -> Call | None:
        """Take a failure, which ends the job; return the next call, or None at the end."""
        self._tally.failures[reason] += 1
        self._job.close()
        return self.begin(now) if now < self._tally.end else None

    def _acknowledge(self, payload: bytes) -> None:
        tally = self._tally
        tally.calls += 1
        tally.transitions += self._call.transitions
        tally.payload += len(payload)


class Connection(Protocol):
    """One connection with the callers that share it."""

    socket: socket.socket
    busy: int
    """Number of callers that wait for a reply."""

    def begin(self, now: float) -> None:
        """Make the first call of every caller."""

    def receive(self, data: bytes, now: float) -> None:
        """Take received bytes and send the next calls. Empty data means that the peer closed."""

    def lose(self, reason: str) -> None:
        """Count every call in flight as failed, and make no more."""


def drive(connections: Sequence[Connection], tally: Tally, seconds: float) -> None:
    """Let all callers begin jobs for `seconds`; the measured time ends with the last reply."""
    clock = time.perf_counter
    waiting = {connection.socket.fileno(): connection for connection in connections}
    with select.epoll() as poll:
        for number in waiting:
            poll.register(number, select.EPOLLIN)
        spent = time.process_time()
        begun = clock()
        tally.end = begun + seconds
        for connection in connections:
            connection.begin(begun)
        while waiting:
            ready = poll.poll(REPLY_TIMEOUT_S)
            if not ready:
                for connection in waiting.values():
                    connection.lose(f"no reply within {REPLY_TIMEOUT_S:.0f} s")
                break
            for number, _ in ready:
                connection = waiting[number]
                connection.receive(connection.socket.recv(1 << 18), clock())
                if not connection.busy:
                    poll.unregister(number)
                    del waiting[number]
        tally.seconds = clock() - begun
        tally.spent = time.process_time() - spent
