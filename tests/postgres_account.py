"""The account that PostgreSQL runs as in the tests: it refuses to run as root."""

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.postgres_binaries import PostgresError


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The account that owns the folder and runs the server, or None for the present user."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def unprivileged(cls) -> Self:
        """Return the present user, or for root the account `nobody` or else another one."""
        if os.geteuid() != 0:
            return cls()
        entries = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
        entries.sort(key=lambda entry: (entry.pw_name != "nobody", entry.pw_uid))
        if not entries:
            raise PostgresError(
                "PostgreSQL does not run as root, and there is no other account on this machine"
            )
        return cls(uid=entries[0].pw_uid, gid=entries[0].pw_gid)

    def own(self, folder: Path) -> None:
        """Give `folder` to the account, and to it alone."""
        if self.uid is not None and self.gid is not None:
            os.chown(folder, self.uid, self.gid)
        folder.chmod(0o700)

    def popen(self, command: Sequence[str | Path], log: Path, cwd: Path) -> subprocess.Popen[bytes]:
        """Start a process of the account, away from the terminal's signals, that logs to `log`."""
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))
        }
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment | {"LC_ALL": "C", "TZ": "UTC"},
                start_new_session=True,
                user=self.uid,
                group=self.gid,
                extra_groups=None if self.uid is None else [],
            )
