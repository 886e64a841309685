"""A temporary service: a process on an embedded store that is removed at the end."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from milepost.cli.errors import CommandError, ExitCode

_MAX_START_S: Final = 60.0
_MAX_STOP_S: Final = 10.0
_POLL_INTERVAL_S: Final = 0.02
_STREAM_INTERVAL_S: Final = "0.01"
"""The demo is short: one commit a second would show hardly any progress."""
LEASE_S: Final = 2.0
"""Lease of the workers of the demo: a killed one is noticed after it."""
_LEASE_SWEEP_INTERVAL_S: Final = "0.1"


@dataclass(frozen=True, slots=True)
class TemporaryService:
    """The process, its address, its store and its log."""

    process: subprocess.Popen[bytes]
    address: str
    database_url: str
    log: Path

    def wait_until_listening(self) -> None:
        """Wait until the service accepts calls."""
        host, _, port = self.address.rpartition(":")
        end = time.monotonic() + _MAX_START_S
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection((host, int(port)), timeout=1).close()
                return
            time.sleep(_POLL_INTERVAL_S)
        raise CommandError(
            f"the service of the demo did not start: {self._last_line()}",
            reason="SERVICE_DID_NOT_START",
            code="UNAVAILABLE",
            exit_code=ExitCode.UNAVAILABLE,
        )

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        last = lines[-1] if lines else "its log is empty"
        with contextlib.suppress(ValueError, KeyError, TypeError):
            last = json.loads(last)["error"]["message"]
        return last


@contextlib.contextmanager
def temporary_service() -> Iterator[TemporaryService]:
    """Run a service for the duration of the block; then stop it and remove its store."""
    with (
        _terminations_as_interrupts(),
        tempfile.TemporaryDirectory(prefix="milepost-demo-", ignore_cleanup_errors=True) as folder,
    ):
        service = _start(Path(folder))
        try:
            yield service
        finally:
            _stop(service.process)


def _start(folder: Path) -> TemporaryService:
    from milepost.config import without_settings

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    url, log = f"sqlite:///{folder / 'milepost.db'}", folder / "service.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "milepost", "serve", "--output", "json"],
            env={
                **without_settings(),
                "MILEPOST_DATABASE_URL": url,
                "MILEPOST_LISTEN": address,
                "MILEPOST_HTTP_LISTEN": "",
                "MILEPOST_DRAIN_SECONDS": "2",
                "MILEPOST_STREAM_INTERVAL_SECONDS": _STREAM_INTERVAL_S,
                "MILEPOST_LEASE_MIN_SECONDS": str(LEASE_S),
                "MILEPOST_LEASE_SWEEP_SECONDS": _LEASE_SWEEP_INTERVAL_S,
            },
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,  # Ctrl-C reaches this process only, which stops the service
        )
    return TemporaryService(process, address, url, log)


def _stop(process: subprocess.Popen[bytes]) -> None:
    before = signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a second Ctrl-C must not interrupt the clean-up
    try:
        process.terminate()
        process.wait(_MAX_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(_number: int, _frame: object) -> None:
    signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def _terminations_as_interrupts() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP like Ctrl-C.

    The current handler of Ctrl-C runs: that of an event loop cancels its main task. An exception
    raised in the middle of a callback of gRPC would leave calls that never end.
    """
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, _interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
