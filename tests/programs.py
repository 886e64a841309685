"""Programs that some tests need, and that are not on every machine.

A test skips itself without its program, and says that something is untested. An environment
variable for each program makes its absence a failure.
"""

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program that is installed or built, or missing."""

    command: str | Path
    """Its name on the search path, or its file."""
    variable: str
    """The environment variable that demands it."""
    absence: str
    """The report that it is missing, and how to get it."""

    def path(self) -> str | None:
        """Return the path of the program, or None if it is neither there nor demanded."""
        folders = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
        found = shutil.which(str(self.command), path=folders)
        assert found or not os.environ.get(self.variable), self.absence
        return found

    def require(self) -> str:
        """Return the path of the program; skip the test where it is missing."""
        found = self.path()
        if found is None:
            pytest.skip(f"{self.absence}: this is UNTESTED")
        return found


CURL: Final = Program(
    command="curl",
    variable="MILEPOST_TEST_CURL",
    absence="curl is not installed (apt install curl)",
)


def listens(address: str) -> bool:
    """Return True if a process accepts connections at an address."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
