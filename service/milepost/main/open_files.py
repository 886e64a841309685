"""The number of files and connections that this process may have open."""

from __future__ import annotations

import contextlib
import resource
from typing import Final

MAX_OPEN_FILES: Final = 65_536
RESERVED: Final = 512
"""Descriptors that connections of callers leave free: database, HTTP port, webhooks, files."""


def raise_open_files_limit() -> int:
    """Raise the soft limit of open files to the hard limit, if need be; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(
            ValueError, OSError
        ):  # some systems have a lower limit of their own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft


def max_connections(open_files: int) -> int:
    """Return how many connections the gRPC port may have with this limit of open files."""
    return max(open_files - RESERVED, open_files // 2)


def max_http_connections(open_files: int, setting: int | None) -> int:
    """Return how many connections the HTTP port keeps for callers: half of those, or `setting`."""
    possible = max_connections(open_files)
    return possible // 2 if setting is None else min(setting, possible)
