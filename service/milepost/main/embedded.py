"""The embedded store: its file, its folder, and the lock of the one process that serves it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from milepost.storage import schema
from milepost.storage.engine import open_engine
from milepost.storage.sqlite import resolved

if TYPE_CHECKING:
    from io import TextIOWrapper
    from typing import Self


class EmbeddedStore:
    """The file of the embedded store. Leave the context to free its lock."""

    def __init__(self, url: str) -> None:
        """Describe the store; nothing is opened yet."""
        self._url = url
        self._stack = contextlib.ExitStack()
        self._lock: TextIOWrapper | None = None

    def __enter__(self) -> Self:
        """Do nothing: `lock` may fail, and is tried again."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Free the lock."""
        self._stack.close()

    def lock(self) -> None:
        """Lock the store, unless it is locked already; a second service on the same file exits.

        Raises:
            OSError: the folder or the file of the lock cannot be created.
        """
        if not self.try_lock():
            path = sqlite_path(self._url)
            sys.exit(f"error: another milepost serves {path}; one process at a time")

    def try_lock(self) -> bool:
        """Lock the store, unless it is locked already; return False if another process serves it.

        Raises:
            OSError: the folder or the file of the lock cannot be created.
        """
        import fcntl  # noqa: PLC0415 - not on every platform, and only the embedded store needs it

        if self._lock is None:
            make_folder(self._url)
            path = sqlite_path(self._url).with_suffix(".lock")
            self._lock = self._stack.enter_context(path.open("a"))
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._lock = None
                return False
        return True

    def migrate(self) -> None:
        """Create the schema, or migrate it to that of this release."""
        if not schema.is_usable(schema.current(open_engine(self._url))):
            schema.upgrade(self._url)


def sqlite_path(url: str) -> Path:
    """Return the path of the embedded store, without symbolic links."""
    return Path(resolved(sa.make_url(url).database or ""))


def make_folder(url: str) -> None:
    """Create the folder of the embedded store if it does not exist."""
    sqlite_path(url).parent.mkdir(parents=True, exist_ok=True)
