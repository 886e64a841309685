"""The work of the demo: the SHA-256 of every file of a folder."""

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
"""How often a small folder reports progress."""
_REPORT_S: Final = 0.25
"""How often a large one does."""
_LARGEST_CHUNK: Final = 1 << 20
_SHOWN: Final = 5
_LONGEST_NAME: Final = 500
"""In characters: paths can be longer than a progress message may be."""

Report = Callable[[float, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Folder:
    """The regular files of a folder, sorted by their bytes, with their sizes."""

    path: Path
    files: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size in self.files)


def scan(path: Path) -> Folder:
    """Find the files. Links are not followed; what Python compiles on its own is left out.

    Raises:
        OSError: The folder cannot be read.
    """
    os.scandir(path).close()
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            file = os.path.join(folder, name)  # noqa: PTH118 - bytes that are no text stay as is
            try:
                status = os.lstat(file)
            except OSError:
                continue  # gone since
            if stat.S_ISREG(status.st_mode):
                found.append((os.path.relpath(file, path), status.st_size))
    return Folder(path, tuple(sorted(found, key=lambda entry: os.fsencode(entry[0]))))


@dataclass(slots=True)
class _Tally:
    """What has been hashed so far."""

    combined: Any = field(default_factory=hashlib.sha256)
    digests: list[tuple[int, str, str]] = field(default_factory=list)
    done: int = 0
    unreadable: int = 0


async def hash_folder(folder: Folder, report: Report) -> dict[str, Any]:
    """Hash every file, and report the share of the bytes that are done.

    The combined digest is that of the lines that ``sha256sum`` writes for the files.
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
                    # What was appended since the scan counts as done already.
                    await report(min(tally.done / folder.size, 1.0), f"hashing {shown}")
        except OSError:
            tally.unreadable += 1
            continue
        tally.combined.update(f"{digest.hexdigest()}  ".encode() + os.fsencode(name) + b"\n")
        tally.digests.append((size, shown, digest.hexdigest()))
    return _result(tally)


def _result(tally: _Tally) -> dict[str, Any]:
    largest = sorted(tally.digests, key=lambda entry: (-entry[0], entry[1]))[:_SHOWN]
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
    """How much to read at once, and when to report."""

    def __init__(self, size: int) -> None:
        self.chunk = min(max(size // _REPORTS, 1), _LARGEST_CHUNK)
        self._step = max(size // _REPORTS, 1)
        self._next_bytes, self._next_time = self._step, time.monotonic() + _REPORT_S

    def is_due(self, done: int) -> bool:
        now = time.monotonic()
        if done < self._next_bytes and now < self._next_time:
            return False
        self._next_bytes, self._next_time = done + self._step, now + _REPORT_S
        return True


def _chunks(file: Path, size: int) -> Iterator[bytes]:
    stream: BinaryIO
    with file.open("rb") as stream:
        while chunk := stream.read(size):
            yield chunk


def _text(name: str) -> str:
    """Return the name as text that can travel, whatever its bytes."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST_NAME else f"…{text[-_LONGEST_NAME:]}"
