"""What the process asks of Linux."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from milepost.main.tuning import schedule_as_batch


def policy_after(chosen: int) -> int:
    """The policy of a thread of which somebody has chosen one, after it asked for batches."""
    os.sched_setscheduler(0, chosen, os.sched_param(0))
    schedule_as_batch()
    return os.sched_getscheduler(0)


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        (os.SCHED_OTHER, os.SCHED_BATCH),
        (os.SCHED_BATCH, os.SCHED_BATCH),
        (os.SCHED_IDLE, os.SCHED_IDLE),
    ],
)
def test_usual_policy_becomes_batch_and_a_chosen_one_stays(chosen, kept):
    """Only who has the policy that everybody has gets another one."""
    with ThreadPoolExecutor(1) as own_thread:  # it alone is scheduled so
        assert own_thread.submit(policy_after, chosen).result() == kept


TELL_FLAGS = """
from pathlib import Path
from milepost.main.tuning import use_huge_pages
use_huge_pages()
heap = Path("/proc/self/smaps").read_text().partition("[heap]")[2]
print(next(line for line in heap.splitlines() if line.startswith("VmFlags")))
"""


def test_heap_is_kept_in_huge_pages():
    """Linux is asked for huge pages under the heap ("hg"), where it has any."""
    told = subprocess.run(
        [sys.executable, "-c", TELL_FLAGS], capture_output=True, text=True, check=True
    ).stdout
    assert ("hg" in told.split()) is Path("/sys/kernel/mm/transparent_hugepage").exists()
