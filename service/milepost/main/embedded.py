"""The embedded store: its file, its folder, and the lock of the one process that serves it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from milepost.storage import schema
from milepost.storage.engine import open_engine

if TYPE_CHECKING:
    from collections.abc import Iterator


def prepare_embedded(url: str) -> None:
    """Create the folder and the schema of the embedded store."""
    make_folder(url)
    if not schema.is_usable(schema.current(open_engine(url))):
        schema.upgrade(url)


@contextlib.contextmanager
def only_process(url: str) -> Iterator[None]:
    """Lock the embedded store; a second service on the same file exits."""
    import fcntl  # noqa: PLC0415 - not on every platform, and only the embedded store needs it

    make_folder(url)
    with sqlite_path(url).with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"error: another milepost serves {sqlite_path(url)}; one process at a time")
        yield


def sqlite_path(url: str) -> Path:
    """Return the path of the embedded store."""
    return Path(sa.make_url(url).database or "")


def make_folder(url: str) -> None:
    """Create the folder of the embedded store if it does not exist."""
    sqlite_path(url).parent.mkdir(parents=True, exist_ok=True)
