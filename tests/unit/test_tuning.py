"""What the process asks of Linux."""

import os
from concurrent.futures import ThreadPoolExecutor

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
