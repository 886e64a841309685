"""Workers that report progress on streams, as fast as the server takes it.

Each stream carries a few operations, reports on them in turn a fixed number of times, as fast as
the server's flow control allows, and closes its side: a server that then ends the stream with OK
has taken every message. The database must hold exactly the acknowledged updates. The
measurement has no fixed end: megabytes may be in flight, and take the slower server longer.
"""

from collections.abc import Sequence
from math import ceil
from typing import Final

from milepost.gen.milepost.v1 import worker_service_pb2 as pb
from tests.bench import frames, messages
from tests.bench.jobs import Tally
from tests.bench.preparation import FIRST_REVISION
from tests.bench.wire import Wire

PER_SECOND: Final = 30_000
"""Reports to send for each second of the intended duration; the same for all servers."""
IN_A_ROW: Final = 16
"""Reports that are sent with one check of the window."""


class Worker:
    """One stream and its operations."""

    __slots__ = ("burst", "cost", "left", "rest", "revisions", "sent", "window")

    def __init__(self, number: int, ids: Sequence[str]) -> None:
        reports = [frames.grpc_message(messages.stream_request(id_)) for id_ in ids]
        row = [reports[n % len(reports)] for n in range(IN_A_ROW)]
        self.burst = b"".join(frames.frame(frames.DATA, 0, number, each) for each in row)
        """A burst of reports, each in its own frame."""
        self.cost = sum(map(len, row))
        """The flow-control cost of the burst, in bytes."""
        self.window = 0
        self.left = 0
        """Number of bursts still to send."""
        self.sent = 0
        self.rest = b""
        self.revisions: dict[str, int] = {}
        """The last acknowledged revision of each operation."""


class StreamConnection(Wire):
    """One connection with a stream for each group of operations."""

    def __init__(
        self, port: int, head: bytes, groups: Sequence[Sequence[str]], tally: Tally
    ) -> None:
        self._head_of_call = head
        self._tally = tally
        self._begun = 0.0
        self._workers: dict[int, Worker] = {}
        super().__init__(port)
        self._workers = {2 * n + 1: Worker(2 * n + 1, ids) for n, ids in enumerate(groups)}

    def begin(self, now: float) -> None:
        """Open the stream of every worker and send its first reports."""
        self._begun = now
        self.busy = len(self._workers)
        reports = (self._tally.end - now) * PER_SECOND
        bursts = ceil(reports / IN_A_ROW / self.busy)
        for number, worker in self._workers.items():
            self.out.append(
                frames.frame(frames.HEADERS, frames.END_HEADERS, number, self._head_of_call)
            )
            worker.window = self.stream_window
            worker.left = bursts
            self._report(number, worker)
        self.flush()

    def lose(self, reason: str) -> None:
        """End every stream as failed."""
        for number in tuple(self._workers):
            self.take_end(number, reason, 0.0)

    def take_data(self, number: int, payload: bytes, now: float) -> None:
        """Take acknowledgements or refusals of one stream."""
        worker = self._workers[number]
        answers, worker.rest = frames.split_messages(worker.rest + payload)
        for answer in answers:
            self._learn(worker, answer, now)

    def take_end(self, number: int, failure: str, _now: float) -> None:
        """Take the end of a stream; one that ends with OK has taken every message."""
        worker = self._workers.pop(number)
        self.busy -= 1
        if failure:
            self._tally.failures[failure] += 1
        else:
            self._tally.jobs += worker.sent
        self._tally.transitions += sum(each - FIRST_REVISION for each in worker.revisions.values())

    def widened(self, number: int, increment: int, _now: float) -> None:
        """Send more reports."""
        if not number:
            for each, worker in self._workers.items():
                self._report(each, worker)
        elif number in self._workers:
            worker = self._workers[number]
            worker.window += increment
            self._report(number, worker)

    def resized(self, change: int) -> None:
        """Change the window of every stream."""
        for worker in self._workers.values():
            worker.window += change

    def _report(self, number: int, worker: Worker) -> None:
        bursts = min(worker.left, min(worker.window, self.window) // worker.cost)
        if bursts <= 0:
            return
        worker.left -= bursts
        worker.sent += bursts * IN_A_ROW
        worker.window -= bursts * worker.cost
        self.window -= bursts * worker.cost
        self.out.append(worker.burst * bursts)
        if not worker.left:
            self.out.append(frames.frame(frames.DATA, frames.END_STREAM, number))

    def _learn(self, worker: Worker, answer: bytes, now: float) -> None:
        tally = self._tally
        tally.calls += 1
        tally.payload += len(answer)
        response = pb.StreamProgressResponse.FromString(answer)
        if response.WhichOneof("item") != "acknowledgement":
            tally.failures[str(response)] += 1
            return
        acknowledged = response.acknowledgement
        if acknowledged.operation_id not in worker.revisions:
            tally.latencies.append(now - self._begun)
        worker.revisions[acknowledged.operation_id] = acknowledged.revision
