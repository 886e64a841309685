"""A process that serves, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.supervisor.reports import ASK_METRICS, ASK_STATE, Assignment, Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost.supervisor.port import Ports

COMMAND: Final = (sys.executable, "-P", "-m", "milepost", "serve")
"""`-P`: the working directory is no place for modules."""
ASK_INTERVAL_S: Final = 0.5
MAX_SILENCE_S: Final = 30.0
"""Time without a report after which a process is killed: it hangs, and would refuse no call."""
METRICS_TIMEOUT_S: Final = 2.0
MAX_REPORT_BYTES: Final = 16 * 1024 * 1024
_CHUNK_BYTES: Final = 256 * 1024
MAX_EXIT_S: Final = 10.0
"""Time between the end of the connection and the exit of the process."""
STARTING, ENDED = "starting", "ended"


class Replica:
    """One process and the reports that it sends."""

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        channel: socket.socket,
    ) -> None:
        """Follow a process that was started, and close the channel once it has ended."""
        self.number = number
        self.pid = process.pid
        self.problem: str | None = STARTING
        """The reason why it is not ready, or None."""
        self.degraded: dict[str, str] = {}
        """Parts that do not work although it may be ready, each with the cause."""
        self.metrics: str | None = None
        """The newest page of its metrics."""
        self.ready = asyncio.Event()
        """Set once it was ready."""
        self._process = process
        self._channel = channel
        self._reported: bool | None = None
        """True after a report since it was last asked; None before its first report."""
        self._has_metrics = asyncio.Event()
        self.end = asyncio.create_task(self._follow())
        """Its exit code, or the negative number of the signal that ended it.

        Wait for it with `asyncio.wait`: to await it would cancel it with the one that waits.
        """

    @classmethod
    async def start(
        cls,
        number: int,
        ports: Ports,
        arguments: Sequence[str],
        command: Sequence[str] = COMMAND,
    ) -> Replica:
        """Start a process that serves on the ports."""
        ours, theirs = socket.socketpair()
        with theirs:
            assignment = Assignment(
                number=number, channel=theirs.fileno(), listen=ports.grpc, http_listen=ports.api
            )
            process = await asyncio.create_subprocess_exec(
                *(*command, *arguments, "--replica", str(assignment)),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C reaches the supervisor only
            )
        ours.settimeout(0)
        replica = cls(number, process, ours)
        telemetry.log.info("process started", process=number, pid=process.pid)
        return replica

    async def is_ready_or_ended(self) -> bool:
        """Wait until it is ready for the first time, or return False once it has ended."""
        ready = asyncio.create_task(self.ready.wait())
        await asyncio.wait([ready, self.end], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        return self.ready.is_set() and not self.end.done()

    async def fetch_metrics(self) -> str | None:
        """Ask for the metrics; return the newest page, which is an older one if none comes."""
        self._has_metrics.clear()
        self._ask(ASK_METRICS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._has_metrics.wait(), METRICS_TIMEOUT_S)
        return self.metrics

    async def stop(self, grace_s: float) -> int:
        """Let it drain; kill it if that takes too long. Return its exit code."""
        self.signal(signal.SIGTERM)
        ended, _ = await asyncio.wait([self.end], timeout=grace_s)
        if not ended:
            telemetry.log.error("process did not stop", process=self.number, pid=self.pid)
            self.signal(signal.SIGKILL)
            await asyncio.wait([self.end])
        return self.end.result()

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _follow(self) -> int:
        watch = asyncio.create_task(self._watch())
        await self._read_reports()
        watch.cancel()
        self._channel.close()
        self.problem = ENDED
        self._has_metrics.set()
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self._process.wait(), MAX_EXIT_S)
        self.signal(signal.SIGKILL)
        return await self._process.wait()

    def _ask(self, question: bytes) -> None:
        """Send a question. One that cannot be sent has no answer, but what was sent is still read.

        A transport of asyncio would be closed with the last report unread.
        """
        with contextlib.suppress(OSError):
            self._channel.send(question)

    async def _read_reports(self) -> None:
        """Take reports until the connection ends, with the process."""
        loop, unread = asyncio.get_running_loop(), b""
        with contextlib.suppress(OSError, ValueError):  # cut off, if it was killed
            while chunk := await loop.sock_recv(self._channel, _CHUNK_BYTES):
                *lines, unread = (unread + chunk).split(b"\n")
                for line in lines:
                    self._take(Report.read(line))
                if len(unread) > MAX_REPORT_BYTES:
                    return

    def _take(self, report: Report) -> None:
        self._reported = True
        self.problem, self.degraded = report.problem, report.degraded
        if report.metrics is not None:
            self.metrics = report.metrics
            self._has_metrics.set()
        if report.problem is None:
            self.ready.set()

    async def _watch(self) -> None:
        """Ask for reports; kill the process if it stops to answer.

        Turns without an answer are counted, not seconds: both sides may have been suspended.
        """
        silence_s = 0.0
        while silence_s < MAX_SILENCE_S:
            self._ask(ASK_STATE)
            await asyncio.sleep(ASK_INTERVAL_S)
            silence_s = silence_s + ASK_INTERVAL_S if self._reported is False else 0.0
            self._reported = self._reported and False
        telemetry.log.error("process does not answer", process=self.number, pid=self.pid)
        self.signal(signal.SIGKILL)
