"""Runs of the command line, with their output and exit codes."""

import json
import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from milepost.config import without_settings
from tests.e2e import fork_server

OK, REFUSED, USAGE, NOT_FOUND, UNAVAILABLE, ENDED_BADLY, DENIED = range(7)
MAX_WAIT_S = 120.0


@dataclass(frozen=True)
class Done:
    """The output and the exit code of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The only document on standard output."""
        assert self.out.endswith("\n")
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The only document on standard error."""
        document: dict[str, Any] = json.loads(self.err)["error"]
        assert document["exit_code"] == self.code
        return document


def milepost(*arguments: str, stdin: str = "", **settings: str) -> Done:
    """Run one command to its end."""
    done = fork_server.run(
        *arguments, environment=without_settings() | settings, timeout=MAX_WAIT_S, stdin=stdin
    )
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def on_a_terminal(*arguments: str, columns: int, **settings: str) -> str:
    """Run one command on a terminal of this width and return all its output."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "milepost", *arguments],
        env=without_settings() | {"TERM": "xterm", "COLUMNS": str(columns)} | settings,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written, end = b"", time.monotonic() + MAX_WAIT_S
    try:
        while select.select([ours], [], [], end - time.monotonic())[0]:
            try:
                written += os.read(ours, 65_536)
            except OSError:  # the other side is closed
                break
        process.wait(max(0.0, end - time.monotonic()))
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return written.decode()


def create(caller: Callable[..., Done], function: str = "video.transcode") -> str:
    """Create an operation and return its id."""
    return str(caller("ops", "create", function, "--output", "json").json["id"])


@contextmanager
def in_background(work: Callable[[], None]) -> Iterator[None]:
    """Run the work in a thread while the block runs."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(MAX_WAIT_S)
