"""Services forked from one process that has imported their modules already.

The import takes most of the processor time of a start, and the tests start hundreds of services.
Everything else is as on the command line: `milepost serve` runs as the main module of a process of
its own, which reads its settings, serves, and ends in order.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import IO, Final

from milepost.config import PREFIX

COMMAND: Final = (sys.executable, "-m", "milepost", "serve")
_MODULES: Final = ("milepost.cli", "milepost.main.serving", "milepost.telemetry", "uvloop")
_MESSAGE_BYTES: Final = 128 * 1024


def _beside_settings(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return the variables that are neither of Milepost nor of pytest."""
    own = (PREFIX, "PYTEST_")
    return {name: value for name, value in environment.items() if not name.startswith(own)}


_ENVIRONMENT: Final = _beside_settings(os.environ)


class ForkedProcess:
    """A forked process, used like one of `subprocess.Popen`."""

    def __init__(self, pid: int, ended: socket.socket) -> None:
        """Store the process id and the connection that tells its exit code."""
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end for so many seconds, and return its exit code."""
        if self.returncode is None:
            self._ended.settimeout(timeout)
            try:
                code = self._ended.recv(_MESSAGE_BYTES)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(COMMAND, timeout or 0) from None
            self.returncode = int(code)
            self._ended.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _ForkServer:
    """The process that the services are forked from."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                (sys.executable, "-m", __name__, str(theirs.fileno())),
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        atexit.register(self._close)

    def _close(self) -> None:
        """End the process, which reads the end of the requests."""
        self._requests.close()
        self._process.wait()

    def fork(self, environment: Mapping[str, str], log: int) -> ForkedProcess:
        """Fork a service that writes to the file `log`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            message = json.dumps(environment).encode()
            socket.send_fds(self._requests, [message], [log, theirs.fileno()])
        return ForkedProcess(int(ours.recv(_MESSAGE_BYTES)), ours)


@cache
def _server() -> _ForkServer:
    return _ForkServer()


def can_fork(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether a fork would be like a process of this command with this environment.

    Libraries may read their variables while they are imported.
    """
    return command == COMMAND and _beside_settings(environment) == _ENVIRONMENT


def fork(environment: Mapping[str, str], log: IO[bytes]) -> ForkedProcess:
    """Fork a service that writes to the file `log`."""
    return _server().fork(environment, log.fileno())


def _fork_on_request(requests: socket.socket) -> bool:
    """Fork a process for every request; return True in each of them, and False at the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that processes that end leave no zombies
    while True:
        message, files, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 2)
        if not message:
            return False
        log, told = files
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _wait_for_a_fork(socket.socket(fileno=told))
            _become(json.loads(message), log)
            return True
        os.close(log)
        os.close(told)


def _wait_for_a_fork(told: socket.socket) -> None:
    """Fork; return in the child, and end with it in the parent, after telling its id and code."""
    if pid := os.fork():
        told.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):  # the tests may have ended
            told.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    told.close()


def _become(environment: Mapping[str, str], log: int) -> None:
    """Give this process the environment, and the streams, of a service."""
    os.environ.clear()
    os.environ.update(environment)
    null = os.open(os.devnull, os.O_RDWR)
    for stream, file in enumerate((null, log, log)):
        os.dup2(file, stream)
    os.close(null)
    os.close(log)
    sys.argv[1:] = COMMAND[3:]


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # as `milepost` does before it imports gRPC
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    if _fork_on_request(socket.socket(fileno=int(sys.argv[1]))):
        runpy.run_module("milepost", run_name="__main__", alter_sys=True)
