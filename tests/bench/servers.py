"""The measured processes."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from milepost.config import without_settings
from tests.bench.cores import LOAD_CORE, SERVER_CORE, pin
from tests.bench.messages import FUNCTION, OWNER
from tests.machine import free_port

ROOT = Path(__file__).resolve().parents[2]

SETTINGS = {
    # All interceptors run as in production: authentication, limits, logs, one trace in 100.
    "MILEPOST_TRACE_SAMPLE_RATIO": "0.01",
    # Limits are checked as in production, but the one principal of the bench never reaches them.
    "MILEPOST_PRINCIPAL_LIMITS": json.dumps(
        {
            OWNER: dict.fromkeys(
                ("creates", "lists", "reads", "changes", "worker_writes", "active"), 10**9
            )
        }
    ),
}
"""Settings of every measured service. The limits that would stop a single caller with thousands of
calls a second (limits per principal, the quota of active operations) are raised here only."""

BATCHING_OFF = {"MILEPOST_BATCHING": "false"}
TRACING_OFF = {"MILEPOST_OTLP_ENDPOINT": "", "MILEPOST_TRACE_SAMPLE_RATIO": "0"}

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_ROLES = ("--role", "CALLER", "--role", "WORKER", "--function", FUNCTION)
_KEY = ("keys", "create", "--subject", OWNER, *_ROLES)


class ServerError(Exception):
    """A process did not start or ended early; the text holds the end of its log."""


class Server:
    """One process that listens on `port`, its output in a file."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        log: Path,
        environment: Mapping[str, str],
        *,
        core: int = SERVER_CORE,
    ) -> None:
        self.port = port
        self._core = core
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**without_settings(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        """Start the process; it may not listen yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_until_listening(self) -> None:
        """Wait until the server accepts connections, and pin it to its core."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = self._log.read_text(errors="replace").splitlines()
                raise ServerError("\n".join([f"{self._log.name} does not listen", *text[-30:]]))
            time.sleep(0.02)
        pin(self._process.pid, self._core)

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of the process."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def pids(self) -> list[int]:
        """Return the processes of the server: the one that was started, and its children."""
        process = psutil.Process(self._process.pid)
        return [process.pid, *(each.pid for each in process.children())]

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


def start_module(module: str, log: Path, *arguments: str) -> Server:
    """A server of the bench itself, which takes its port as the first argument."""
    port = free_port()
    return Server([sys.executable, "-m", module, str(port), *arguments], port, log, {})


def start_collector(log: Path) -> Server:
    """Start the trace collector on the core of the load."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.collector", str(port)]
    return Server(command, port, log, {}, core=LOAD_CORE)


def start_service(
    url: str, log: Path, settings: Mapping[str, str], *, http_port: int | None = None
) -> Server:
    """Start the service on the database `url`, with the HTTP port on a free port by default."""
    port = free_port()
    addresses = {
        "MILEPOST_LISTEN": f"127.0.0.1:{port}",
        "MILEPOST_HTTP_LISTEN": f"127.0.0.1:{http_port or free_port()}",
    }
    environment = {**_settings(url), **addresses, **settings}
    return Server([sys.executable, "-m", "milepost", "serve"], port, log, environment)


def migrate(url: str) -> None:
    """Migrate the database to the schema of the service."""
    _milepost(url, "migrate")


def create_key(url: str) -> str:
    """Create an API key; return its secret."""
    return str(json.loads(_milepost(url, *_KEY, "--output", "json"))["secret"])


def _milepost(url: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "milepost", *arguments],
        cwd=ROOT,
        env={**without_settings(), **_settings(url)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServerError(f"milepost {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _settings(url: str) -> dict[str, str]:
    return {**SETTINGS, "MILEPOST_DATABASE_URL": url}
