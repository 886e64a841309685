"""The files of a SQLite database that has open connections: the same ones as at the beginning.

A file that is removed or replaced while it is open stays in use under no name. SQLite goes on
writing to it, and what it acknowledges is gone as soon as the process is killed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from typing import Final

SUFFIXES: Final = ("", "-wal")
"""Suffixes of the files that must stay: the database, and its log."""
MOVED: Final = "the database file or its log was moved, replaced or removed"


class DatabaseFiles:
    """The identities of the files of one database, while an engine has connections to it.

    Without a connection there is nothing to lose, and SQLite itself removes the log.
    """

    def __init__(self, database: str) -> None:
        """Watch the files of the database at a path."""
        self._paths = tuple(f"{database}{suffix}" for suffix in SUFFIXES)
        self._lock = threading.Lock()
        self._connections = 0
        self._found: dict[str, tuple[int, int]] = {}

    def opened(self) -> None:
        """Count a connection; the first one remembers the files."""
        with self._lock:
            if not self._connections:
                self._found.clear()
            self._connections += 1

    def closed(self) -> None:
        """Count a connection no more."""
        with self._lock:
            self._connections -= 1

    def require(self) -> None:
        """Remember files that are new, such as the log of the first write.

        Raises:
            sqlite3.OperationalError: a file that open connections use has lost its name.
        """
        if not self._connections:
            return
        for path in self._paths:
            found, known = _identity(path), self._found.get(path)
            if known is None and found is not None:
                self._found[path] = found
            elif found != known:
                raise _moved()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - once for each transaction
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _moved() -> sqlite3.OperationalError:
    """Return the error that SQLite itself reports without a write-ahead log."""
    error = sqlite3.OperationalError(MOVED)
    error.sqlite_errorcode = sqlite3.SQLITE_READONLY_DBMOVED
    error.sqlite_errorname = "SQLITE_READONLY_DBMOVED"
    return error
