"""Workers with many live operations, each of which is reported once in an interval.

A worker is a connection with one progress stream. Its operations are due at random times. It sends
what is due, in one message or in one for each update, and then waits for `pace` seconds.
"""

import random
import select
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from milepost.gen.milepost.v1 import worker_service_pb2 as pb
from tests.bench import frames, messages
from tests.bench.wire import Wire

LAST_ANSWERS_S: Final = 10.0
"""Time that the load waits for the last answers."""
_UPDATES_TAG: Final = b"\x32"
"""The tag of an element of `updates`: field 6, with a length."""


@dataclass(slots=True)
class Tally:
    """The counts of one measurement."""

    reports: int = 0
    requests: int = 0
    acknowledgements: int = 0
    responses: int = 0
    delays: list[float] = field(default_factory=list)
    """Seconds from each report to its acknowledgement."""
    failures: Counter[str] = field(default_factory=Counter)

    def delay_ms(self, share: float) -> float:
        """Return the delay that `share` of the reports did not exceed."""
        cuts = statistics.quantiles(self.delays, n=1_000, method="inclusive")
        return cuts[round(share * 1_000) - 1] * 1_000


class Report:
    """One operation: its encoded report, and when it was sent and is due."""

    __slots__ = ("due_time", "operation_id", "request", "sent_time", "update")

    def __init__(self, operation_id: str, due_time: float) -> None:
        self.operation_id = operation_id
        self.due_time = due_time
        self.sent_time = 0.0
        self.request = messages.stream_request(operation_id)
        self.update = _UPDATES_TAG + bytes([len(self.request)]) + self.request
        """The same as an element of `updates`: the fields have the same numbers."""


class Worker(Wire):
    """One connection with one progress stream."""

    STREAM: Final = 1

    def __init__(
        self, port: int, head: bytes, ids: Sequence[str], tally: Tally, *, is_batched: bool
    ) -> None:
        self._tally = tally
        self._is_batched = is_batched
        self._rest_of_data = b""
        self._reports = {operation_id: Report(operation_id, 0.0) for operation_id in ids}
        self._order: list[Report] = []
        self._next = 0
        self.is_open = True
        super().__init__(port)
        self.out.append(frames.frame(frames.HEADERS, frames.END_HEADERS, self.STREAM, head))

    def plan(self, begin: float, interval: float) -> None:
        """Let each operation be due at a random time of the first interval."""
        for report in self._reports.values():
            report.due_time = begin + random.uniform(0, interval)
        self._order = sorted(self._reports.values(), key=lambda report: report.due_time)

    def send_due(self, now: float, interval: float) -> None:
        """Send the reports that are due."""
        due: list[Report] = []
        while (report := self._order[self._next]).due_time <= now:
            report.due_time += interval
            report.sent_time = now
            due.append(report)
            self._next = (self._next + 1) % len(self._order)
        if not due or not self.is_open:
            return
        self._tally.reports += len(due)
        if self._is_batched:
            self._send(b"".join(report.update for report in due))
        else:
            for report in due:
                self._send(report.request)
        self.flush()

    def _send(self, message: bytes) -> None:
        self._tally.requests += 1
        data = frames.grpc_message(message)
        self.out.append(frames.frame(frames.DATA, 0, self.STREAM, data))

    def end(self) -> None:
        """End the reports: the service answers what it has, and ends the stream."""
        if self.is_open:
            self.out.append(frames.frame(frames.DATA, frames.END_STREAM, self.STREAM))
            self.flush()

    def lose(self, reason: str) -> None:
        """Count the stream as failed."""
        self.take_end(self.STREAM, reason, 0.0)

    def take_data(self, number: int, payload: bytes, now: float) -> None:
        """Take acknowledgements."""
        assert number == self.STREAM
        answers, self._rest_of_data = frames.split_messages(self._rest_of_data + payload)
        for answer in answers:
            self._tally.responses += 1
            response = pb.StreamProgressResponse.FromString(answer)
            for item in response.acknowledgements or [response.acknowledgement]:
                self._acknowledge(item, response, now)

    def _acknowledge(
        self, item: pb.Acknowledgement, response: pb.StreamProgressResponse, now: float
    ) -> None:
        report = self._reports.get(item.operation_id)
        if report is None:
            self._tally.failures[str(response)] += 1
            return
        self._tally.acknowledgements += 1
        self._tally.delays.append(now - report.sent_time)

    def take_end(self, number: int, failure: str, _now: float) -> None:
        """Take the end of the stream."""
        assert number == self.STREAM
        self.is_open = False
        if failure:
            self._tally.failures[failure] += 1


def report_for(workers: Sequence[Worker], seconds: float, *, interval: float, pace: float) -> None:
    """Let all operations be reported once in `interval` for `seconds`."""
    clock = time.perf_counter
    by_number = {worker.socket.fileno(): worker for worker in workers}
    with select.epoll() as poll:
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        begin = clock()
        turns = [(begin + random.uniform(0, pace), worker) for worker in workers]
        for worker in workers:
            worker.plan(begin, interval)
        turns.sort(key=lambda turn: turn[0])
        while clock() < begin + seconds:
            # All workers have the same pace, so that their turns stay in order.
            while turns[0][0] <= (now := clock()):
                time_of_turn, worker = turns.pop(0)
                worker.send_due(now, interval)
                turns.append((max(time_of_turn + pace, now), worker))
            _receive(poll, by_number, max(0.0, turns[0][0] - clock()))
        for worker in workers:
            worker.end()
        end = clock() + LAST_ANSWERS_S
        while any(worker.is_open for worker in workers) and clock() < end:
            _receive(poll, by_number, end - clock())


def _receive(poll: select.epoll, workers: dict[int, Worker], max_wait: float) -> None:
    for number, _ in poll.poll(max_wait):
        worker = workers[number]
        worker.receive(worker.socket.recv(1 << 18), time.perf_counter())
        if not worker.is_open:
            poll.unregister(number)
