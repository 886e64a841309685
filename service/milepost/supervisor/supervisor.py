"""The supervisor: starts the processes, keeps them running, and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from milepost import __version__, telemetry
from milepost.config import split_address
from milepost.supervisor.merged_metrics import MergedMetrics
from milepost.supervisor.port import held_ports
from milepost.supervisor.replica import Replica
from milepost.supervisor.slot import Slot, log_end, process_metrics
from milepost.supervisor.stop_signals import STOP_SIGNALS
from milepost.telemetry.metrics_export import exporting_metrics
from milepost.tls import TlsFiles, TlsPair
from milepost.web.http_port import HttpPort
from milepost.web.probes import State, probe_app
from milepost.web.tls import server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from milepost.config import Settings
    from milepost.supervisor.port import Ports

STOP_GRACE_S: Final = 10.0
"""Time for a process to end, beyond what the settings give it to drain."""
DRAINING: Final = "draining"
SUPERVISOR: Final = 0
"""Number of the supervisor among the processes, in the identity of exported metrics."""
_STANDARD_ERROR: Final = 2


async def supervise(settings: Settings, arguments: Sequence[str]) -> int:
    """Run the processes until a signal to stop, then let them drain; return the exit code.

    SIGHUP restarts them one by one. `arguments` are those of their command, `milepost serve`.

    Raises:
        OSError: a port is not free.
    """
    telemetry.log_errors_of_loop()
    with held_ports(settings) as ports:
        supervisor = Supervisor(settings, ports, arguments)
        async with supervisor.pages(), supervisor.exported_metrics():
            return await supervisor.run()


class Supervisor:
    """The processes on shared ports."""

    def __init__(self, settings: Settings, ports: Ports, arguments: Sequence[str]) -> None:
        """Prepare the processes; they listen on `ports`."""
        self._settings = settings
        self._ports = ports
        self._arguments = arguments
        self._grace_s = settings.not_ready_seconds + settings.drain_seconds + STOP_GRACE_S
        self._slots = [Slot(n, self._start) for n in range(1, settings.processes + 1)]
        self._running: set[Replica] = set()
        """All processes, also those that are not in charge yet or no longer."""
        self._ended = MergedMetrics()
        self._stop = asyncio.Event()
        self._hang_up = asyncio.Event()
        self._on_terminal = os.isatty(_STANDARD_ERROR)

    async def run(self) -> int:
        """Run until a signal; return the exit code.

        A first process that ends before it is ready ends the supervisor, with its exit code: it has
        reported the reason, and the other ones would only repeat it.
        """
        self._take_signals()
        self._log_start()
        first = await self._slots[0].fill()
        await self._stopped_or(first.is_ready_or_ended())
        if first.end.done() and not self._stop.is_set():
            return _failure(first)
        async with self._kept():
            await self._stop.wait()
        telemetry.log.info("draining")
        codes = await asyncio.gather(*(each.stop(self._grace_s) for each in self._running))
        telemetry.log.info("stopped")
        # One that has just begun has no handler of the signal yet.
        return int(not {*codes} <= {0, -signal.SIGTERM})

    @contextlib.asynccontextmanager
    async def pages(self) -> AsyncIterator[None]:
        """Serve probes and the metrics of all processes on the HTTP port, if there is one."""
        settings = self._settings
        if not (address := settings.probes_listen or settings.http_listen):
            yield
            return
        host, port = split_address(address)
        app = probe_app(lambda: State(self._problem, self._degraded), self._metrics)
        tls = None if settings.probes_listen else _tls(settings)
        async with HttpPort(host, int(port), app, tls=tls):
            yield

    def exported_metrics(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Export the metrics of the processes themselves; each of them exports its own."""
        return exporting_metrics(
            self._settings.otlp_endpoint,
            version=__version__,
            process=SUPERVISOR,
            collect=lambda: process_metrics(self._slots),
        )

    @property
    def _problem(self) -> str | None:
        """The reason why no process is ready, or None if one is."""
        if self._stop.is_set():
            return DRAINING
        problems = [slot.problem for slot in self._slots]
        return None if None in problems else problems[0]

    @property
    def _degraded(self) -> dict[str, str]:
        """Parts that do not work in any process, each with the cause."""
        found: dict[str, str] = {}
        for slot in self._slots:
            if slot.replica is not None:
                found |= slot.replica.degraded
        return found

    async def _metrics(self, _accept: str) -> tuple[bytes, str]:
        """Return the page of the metrics of all processes, without exemplars."""
        await asyncio.gather(*(each.fetch_metrics() for each in self._running))
        merged = self._ended.copy()
        for each in self._running:
            if each.metrics is not None:
                merged.add(each.metrics, has_ended=False)
        return merged.page(process_metrics(self._slots)), CONTENT_TYPE_PLAIN_0_0_4

    async def _start(self, number: int) -> Replica:
        replica = await Replica.start(number, self._ports, self._arguments)
        self._running.add(replica)
        replica.end.add_done_callback(lambda _: self._note_end(replica))
        return replica

    def _note_end(self, replica: Replica) -> None:
        self._running.discard(replica)
        if replica.metrics is not None:
            self._ended.add(replica.metrics, has_ended=True)

    @contextlib.asynccontextmanager
    async def _kept(self) -> AsyncIterator[None]:
        """Keep all processes running, and restart them on request, inside of the context."""
        tasks = [asyncio.create_task(slot.keep()) for slot in self._slots]
        tasks.append(asyncio.create_task(self._renew_on_hang_up()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _renew_on_hang_up(self) -> None:
        while True:
            await self._hang_up.wait()
            self._hang_up.clear()
            telemetry.log.info("rolling restart")
            if await self._renew():
                telemetry.log.info("rolling restart finished")

    async def _renew(self) -> bool:
        """Replace the processes one by one; return False if one of the new ones is not ready."""
        for slot in self._slots:
            problem: str | None = None
            try:
                if not await slot.renew(self._grace_s):
                    problem = "the new process was not ready"
            except OSError as error:
                problem = str(error)
            if problem is not None:
                telemetry.log.error("rolling restart stopped", process=slot.number, problem=problem)
                return False
        return True

    async def _stopped_or(self, other: Coroutine[Any, Any, object]) -> None:
        """Wait for the signal to stop, or for the other coroutine."""
        tasks = [asyncio.create_task(self._stop.wait()), asyncio.create_task(other)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_hang_up)

    def _on_stop(self, number: int) -> None:
        """Stop at the first signal; at the second one end all processes at once."""
        if self._stop.is_set():
            for each in self._running:
                each.signal(signal.SIGKILL)
            telemetry.finish_log()
            os._exit(128 + number)
        self._stop.set()

    def _on_hang_up(self) -> None:
        """Restart the processes; but stop if the reason is that the terminal was closed."""
        is_closed = self._on_terminal and not os.isatty(_STANDARD_ERROR)
        (self._stop if is_closed else self._hang_up).set()

    def _log_start(self) -> None:
        telemetry.log.info(
            "supervising",
            processes=len(self._slots),
            listen=self._ports.grpc,
            http_api=self._ports.api or None,
            probes_listen=self._settings.probes_listen or self._settings.http_listen,
        )


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS of the HTTP port, or None if it is not encrypted."""
    if not settings.http_tls or settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    files = TlsFiles(
        certificate=settings.tls_cert_file,
        key=settings.tls_key_file,
        client_authorities=settings.tls_client_ca_file,
    )
    return server_context(TlsPair(files))  # the processes report on the files


def _failure(first: Replica) -> int:
    """Return the exit code for a first process that did not start."""
    code = first.end.result()
    if code > 0:  # it has written why, as the last line of standard error
        return code
    log_end(first)
    return 1
