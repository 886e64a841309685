"""The work of the demo: SHA-256 digests of the files of a folder, which can be resumed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
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

Report = Callable[[float, str, list[str]], Awaitable[None]]
"""A report of the share of bytes hashed, a message, and the digests so far, in hexadecimal."""


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
    digests: list[str] = field(default_factory=list)
    """Of each file in the order of the folder; empty for one that cannot be read."""
    sizes: list[tuple[int, str, str]] = field(default_factory=list)
    done: int = 0

    def add(self, name: str, size: int, digest: str) -> None:
        """Add the next file."""
        self.digests.append(digest)
        if digest:
            self.combined.update(f"{digest}  ".encode() + os.fsencode(name) + b"\n")
            self.sizes.append((size, _text(name), digest))


async def hash_folder(
    folder: Folder, report: Report, resumed_from: Sequence[str] = ()
) -> dict[str, Any]:
    """Hash every file, and report the share of bytes hashed so far.

    The combined digest covers the lines that ``sha256sum`` writes for the files. `resumed_from` are
    the digests that an earlier attempt reported.
    """
    tally = _Tally()
    for (name, size), digest in zip(folder.files, resumed_from, strict=False):
        tally.add(name, size, digest)
        tally.done += size
    pace = _Pace(folder.size, tally.done)
    for name, _ in folder.files[len(tally.digests) :]:
        digest, size = await _hash_file(folder, name, tally, pace, report)
        tally.add(name, size, digest)
    return {**_result(tally), "files_of_checkpoint": len(resumed_from)}


async def _hash_file(
    folder: Folder, name: str, tally: _Tally, pace: _Pace, report: Report
) -> tuple[str, int]:
    """Return the digest and the size of a file; an empty digest if it cannot be read."""
    digest, size = hashlib.sha256(), 0
    try:
        chunks = _chunks(folder.path / name, pace.chunk)
        while chunk := await asyncio.to_thread(next, chunks, b""):
            digest.update(chunk)
            size += len(chunk)
            tally.done += len(chunk)
            if pace.is_due(tally.done):
                # A file may have grown since the scan.
                share = min(tally.done / folder.size, 1.0)
                await report(share, f"hashing {_text(name)}", tally.digests)
    except OSError:
        return "", size
    return digest.hexdigest(), size


def _result(tally: _Tally) -> dict[str, Any]:
    largest = sorted(tally.sizes, key=lambda entry: (-entry[0], entry[1]))[:_LISTED_FILES]
    return {
        "files": len(tally.sizes),
        "bytes": sum(size for size, _, _ in tally.sizes),
        "unreadable": len(tally.digests) - len(tally.sizes),
        "sha256": tally.combined.hexdigest(),
        "largest": [
            {"path": name, "bytes": size, "sha256": digest} for size, name, digest in largest
        ],
    }


class _Pace:
    """Size of the chunks, and schedule of the progress reports."""

    def __init__(self, size: int, done: int) -> None:
        self.chunk = min(max(size // _REPORTS, 1), _MAX_CHUNK_BYTES)
        self._step = max(size // _REPORTS, 1)
        self._next_bytes, self._next_time = done + self._step, time.monotonic() + _REPORT_INTERVAL_S

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
