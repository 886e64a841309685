"""A small disk for PostgreSQL that can be filled: a tmpfs, where this process may mount one."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.postgres_binaries import temporary_root

BLOCK: Final = bytes(1 << 20)
BALLAST: Final = "ballast"


class SmallDisk:
    """A mounted file system of a fixed size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Leave no room inside of the block."""
        ballast = self.folder / BALLAST
        try:
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(BLOCK):
                    pass
            yield
        finally:
            ballast.unlink()


@contextlib.contextmanager
def small_disk(mib: int) -> Iterator[SmallDisk | None]:
    """Mount a disk for the block; None where that is not allowed."""
    folder = Path(tempfile.mkdtemp(prefix="mp-disk-", dir=temporary_root()))
    folder.chmod(0o755)
    mount = ("mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", folder)
    mounted = os.geteuid() == 0 and _run(*mount)
    try:
        yield SmallDisk(folder) if mounted else None
    finally:
        if mounted:
            _run("umount", "--lazy", folder)
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: str | Path) -> bool:
    program = shutil.which(str(command[0]))
    if program is None:
        return False
    done = subprocess.run([program, *command[1:]], capture_output=True, check=False)
    return done.returncode == 0
