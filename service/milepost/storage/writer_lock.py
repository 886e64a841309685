"""The lock that the writers of a SQLite file take, in all processes and threads.

SQLite lets one connection write at a time, but another may checkpoint the log at that moment.
Before SQLite 3.51.3 the two together can corrupt the log. So every transaction that writes holds
this lock from its beginning to its end, which includes the checkpoint that follows a commit: a
command such as ``milepost keys create`` may run beside the service.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from milepost.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    from milepost.storage.database_files import DatabaseFiles

SUFFIX: Final = "-writer"
"""Suffix of the lock file after the name of the database, as `-wal` is that of the log."""
_RETRY_S: Final = 0.001


class WriterLock:
    """One holder of the lock; the system frees it when the process ends."""

    def __init__(self, database: str, timeout_s: float, files: DatabaseFiles | None = None) -> None:
        """Open the lock file of a database, and create it if it does not exist.

        With `files`, these must still be those of the database whenever the lock is taken.
        """
        self._timeout_s = timeout_s
        self._files = files
        # Without write access: processes of other users may have created it.
        self._file = os.open(f"{database}{SUFFIX}", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def __enter__(self) -> None:
        """Take the lock.

        Raises:
            StoreUnavailable: another writer holds it for too long.
            sqlite3.OperationalError: the database has other files now.
        """
        end = time.monotonic() + self._timeout_s
        while not self._taken():
            if time.monotonic() > end:
                raise StoreUnavailable
            time.sleep(_RETRY_S)
        try:
            if self._files is not None:
                self._files.require()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        """Free the lock."""
        import fcntl  # noqa: PLC0415 - not on every platform, and only SQLite needs it

        fcntl.flock(self._file, fcntl.LOCK_UN)

    def _taken(self) -> bool:
        import fcntl  # noqa: PLC0415 - see `__exit__`

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close the file, which frees the lock."""
        os.close(self._file)
