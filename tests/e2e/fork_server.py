"""Processes of `milepost` forked from one that has imported its modules already.

The import takes most of the processor time of a start, and the tests start hundreds of services and
commands. Everything else is as on the command line: `milepost` runs as the main module of a process
of its own, which reads its arguments, settings and input, and ends in order.
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
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from typing import IO, Any, Final

from milepost.config import PREFIX

PROGRAM: Final = (sys.executable, "-m", "milepost")
_MODULES: Final = (
    "milepost.cli",
    "milepost.main.serving",
    "milepost.telemetry",
    "milepost_client",
    "redis.asyncio",
    "uvloop",
)
_MESSAGE_BYTES: Final = 128 * 1024


def _beside_settings(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return the variables that are neither of Milepost nor of pytest."""
    own = (PREFIX, "PYTEST_")
    return {name: value for name, value in environment.items() if not name.startswith(own)}


_ENVIRONMENT: Final = _beside_settings(os.environ)


class ForkedProcess:
    """A forked process, used like one of `subprocess.Popen`."""

    def __init__(self, command: Sequence[str], pid: int, ended: socket.socket) -> None:
        """Store the command, the process id and the connection that tells its exit code."""
        self.args = command
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
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
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
    """The process that the others are forked from."""

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

    def fork(
        self, command: Sequence[str], environment: Mapping[str, str], files: Sequence[int]
    ) -> ForkedProcess:
        """Fork a process whose standard input, output and error are these files."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            message = json.dumps([command[len(PROGRAM) :], environment]).encode()
            socket.send_fds(self._requests, [message], [*files, theirs.fileno()])
        return ForkedProcess(command, int(ours.recv(_MESSAGE_BYTES)), ours)


@cache
def _server() -> _ForkServer:
    return _ForkServer()


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: IO[Any],
    stdout: IO[Any],
    stderr: IO[Any],
    forked: bool = True,
) -> subprocess.Popen[bytes] | ForkedProcess:
    """Start a command with the files as its standard streams: a fork, if that makes no difference.

    Libraries may read their variables while they are imported. So the environment of a fork differs
    from that of the tests in nothing but settings.
    """
    is_milepost = tuple(command[: len(PROGRAM)]) == PROGRAM
    if forked and is_milepost and _beside_settings(environment) == _ENVIRONMENT:
        files = stdin.fileno(), stdout.fileno(), stderr.fileno()
        return _server().fork(command, environment, files)
    return subprocess.Popen(command, env=environment, stdin=stdin, stdout=stdout, stderr=stderr)


def run(
    *arguments: str, environment: Mapping[str, str], timeout: float, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `milepost` with these arguments to its end, and return its output.

    Args:
        arguments: the words behind `milepost`.
        environment: its environment.
        timeout: the seconds that it may take.
        stdin: its standard input.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(stdin)
        given.seek(0)
        command = (*PROGRAM, *arguments)
        process = start(command, environment, stdin=given, stdout=out, stderr=err)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(process.args, code, out.read(), err.read())


def _fork_on_request(requests: socket.socket) -> bool:
    """Fork a process for every request; return True in each of them, and False at the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that processes that end leave no zombies
    while True:
        message, files, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 4)
        if not message:
            return False
        *streams, told = files
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _wait_for_a_fork(socket.socket(fileno=told))
            arguments, environment = json.loads(message)
            _become(arguments, environment, streams)
            return True
        for file in files:
            os.close(file)


def _wait_for_a_fork(told: socket.socket) -> None:
    """Fork; return in the child, and end with it in the parent, after telling its id and code."""
    if pid := os.fork():
        told.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):  # the tests may have ended
            told.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    told.close()


def _become(
    arguments: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]
) -> None:
    """Give this process the arguments, the environment and the streams of another."""
    os.environ.clear()
    os.environ.update(environment)
    for stream, file in enumerate(streams):
        os.dup2(file, stream)
        os.close(file)
    sys.argv[1:] = arguments


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # as `milepost` does before it imports gRPC
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    if _fork_on_request(socket.socket(fileno=int(sys.argv[1]))):
        runpy.run_module("milepost", run_name="__main__", alter_sys=True)
