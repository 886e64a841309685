"""CPU affinity: servers run on the first core, the load and PostgreSQL on the last."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

_ALLOWED = sorted(os.sched_getaffinity(0))
SERVER_CORE = _ALLOWED[0]
LOAD_CORE = _ALLOWED[-1]


def pin(pid: int, core: int) -> None:
    """Pin all threads of the process to `core`; threads and children started later inherit that."""
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            for thread in Path(f"/proc/{each.pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), {core})


@contextlib.contextmanager
def running_on(core: int) -> Iterator[None]:
    """Run this thread on `core` inside the block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
