"""The two workers of the demo: the first one is killed, and the second one goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from milepost.cli.demo_worker import HELD_AT
from milepost.cli.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.cli.display import Show
    from milepost_client import Operation

NAME: Final = "demo-worker"
_POLL_INTERVAL_S: Final = 0.1


@dataclass(slots=True, kw_only=True)
class DemoWorkers:
    """Processes of workers, which end with the block of `running`."""

    address: str
    api_key: str
    insecure: bool
    folder: Path
    function: str
    lease_s: float
    announce: Callable[[str], None]
    """Takes a line for people."""
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the first worker, and its successor, while the block runs."""
        try:
            self._start("--hold")
            yield
        finally:
            for process in self._processes:
                process.kill()
                process.communicate()

    @contextlib.contextmanager
    def observing(self, display: AbstractContextManager[Show]) -> Iterator[Show]:
        """Show each change, and kill the first worker in the middle of the work."""
        with display as show:

            def observe(operation: Operation) -> None:
                show(operation)
                if len(self._processes) == 1 and (operation.progress or 0.0) >= HELD_AT:
                    self._replace(operation)

            yield observe

    async def failure(self) -> None:
        """Wait until a worker has failed.

        Raises:
            CommandError: Always, with the reason of the worker.
        """
        while self._processes[-1].poll() in (None, 0):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(_POLL_INTERVAL_S)
        raise _reason(self._processes[-1])

    def _replace(self, operation: Operation) -> None:
        if operation.status.is_terminal:
            return
        self._processes[0].kill()
        self._start()
        self.announce(
            f"{NAME}-1 is killed (kill -9) at {operation.progress:.0%}; {NAME}-2 starts, and gets"
            " the operation when the lease runs out"
        )

    def _start(self, *options: str) -> None:
        access = {"MILEPOST_ADDRESS": self.address, "MILEPOST_API_KEY": self.api_key}
        process = subprocess.Popen(  # noqa: S603 - this program, with a folder of its user
            [
                *(sys.executable, "-m", "milepost.cli.demo_worker", *options),
                *("--function", self.function, "--lease", str(self.lease_s)),
                *("--name", f"{NAME}-{len(self._processes) + 1}"),
                *(["--insecure"] if self.insecure else []),
                *("--", str(self.folder)),
            ],
            env=os.environ | access,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the demo only, which ends its workers
        )
        self._processes.append(process)


def _reason(process: subprocess.Popen[bytes]) -> CommandError:
    """Return the error that the worker wrote, or its last line."""
    written = process.stderr.read() if process.stderr is not None else b""
    lines = written.decode(errors="replace").splitlines()
    last = lines[-1] if lines else f"exit code {process.returncode}"
    try:
        error: dict[str, Any] = json.loads(last)["error"]
        exit_code = ExitCode(error.pop("exit_code"))
        return CommandError(error.pop("message"), exit_code=exit_code, **error)
    except (ValueError, KeyError, TypeError):
        return CommandError(
            f"a worker of the demo failed: {last}",
            reason="WORKER_FAILED",
            code="UNKNOWN",
            exit_code=ExitCode.REFUSED,
        )
