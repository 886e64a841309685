"""The work of the demo: SHA-256 digests of the files of a folder."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

_REPORTS: Final = 20
"""Progress reports of a small folder."""
_REPORT_INTERVAL_S: Final = 0.25
"""Interval of the progress reports of a large folder."""
_MAX_CHUNK_BYTES: Final = 1 << 20
_LISTED_FILES: Final = 5
"""Number of files listed in the result, the largest ones."""
_MAX_NAME_LENGTH: Final = 500
"""In characters: a path can be longer than a progress message."""

Report = Callable[[float, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Folder:
    """The regular files of a folder with their sizes, sorted by the bytes of their names."""

    path: Path
    files: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        """Total size of the files, in bytes."""
        return sum(size for _, size in self.files)


def scan(path: Path) -> Folder:
    """Find the files. Links are not followed, and compiled Python is left out.

    Raises:
        OSError: The folder cannot be read.
    """
    os.scandir(path).close()
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            file = os.path.join(folder, name)  # noqa: PTH118 - keeps names that are not UTF-8
            try:
                status = os.lstat(file)
            except OSError:
                continue  # removed meanwhile
            if stat.S_ISREG(status.st_mode):
                found.append((os.path.relpath(file, path), status.st_size))
    return Folder(path, tuple(sorted(found, key=lambda entry: os.fsencode(entry[0]))))


@dataclass(slots=True)
class _Tally:
    """Digests and counts so far."""

    combined: Any = field(default_factory=hashlib.sha256)
    digests: list[tuple[int, str, str]] = field(default_factory=list)
    done: int = 0
    unreadable: int = 0


async def hash_folder(folder: Folder, report: Report) -> dict[str, Any]:
    """Hash every file, and report the share of bytes hashed so far.

    The combined digest covers the lines that ``sha256sum`` writes for the files.
    """
    tally = _Tally()
    pace = _Pace(folder.size)
    for name, _ in folder.files:
        shown = _text(name)
        digest, size = hashlib.sha256(), 0
        try:
            chunks = _chunks(folder.path / name, pace.chunk)
            while chunk := await asyncio.to_thread(next, chunks, b""):
                digest.update(chunk)
                size += len(chunk)
                tally.done += len(chunk)
                if pace.is_due(tally.done):
                    # A file may have grown since the scan.
                    await report(min(tally.done / folder.size, 1.0), f"hashing {shown}")
        except OSError:
            tally.unreadable += 1
            continue
        tally.combined.update(f"{digest.hexdigest()}  ".encode() + os.fsencode(name) + b"\n")
        tally.digests.append((size, shown, digest.hexdigest()))
    return _result(tally)


def _result(tally: _Tally) -> dict[str, Any]:
    largest = sorted(tally.digests, key=lambda entry: (-entry[0], entry[1]))[:_LISTED_FILES]
    return {
        "files": len(tally.digests),
        "bytes": sum(size for size, _, _ in tally.digests),
        "unreadable": tally.unreadable,
        "sha256": tally.combined.hexdigest(),
        "largest": [
            {"path": name, "bytes": size, "sha256": digest} for size, name, digest in largest
        ],
    }


class _Pace:
    """Size of the chunks, and schedule of the progress reports."""

    def __init__(self, size: int) -> None:
        self.chunk = min(max(size // _REPORTS, 1), _MAX_CHUNK_BYTES)
        self._step = max(size // _REPORTS, 1)
        self._next_bytes, self._next_time = self._step, time.monotonic() + _REPORT_INTERVAL_S

    def is_due(self, done: int) -> bool:
        now = time.monotonic()
        if done < self._next_bytes and now < self._next_time:
            return False
        self._next_bytes, self._next_time = done + self._step, now + _REPORT_INTERVAL_S
        return True


def _chunks(file: Path, size: int) -> Iterator[bytes]:
    stream: BinaryIO
    with file.open("rb") as stream:
        while chunk := stream.read(size):
            yield chunk


def _text(name: str) -> str:
    """Return the name as valid UTF-8 text, whatever its bytes."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _MAX_NAME_LENGTH else f"…{text[-_MAX_NAME_LENGTH:]}"
