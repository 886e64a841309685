"""The scheduling policy that the process requests from Linux."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from milepost.main.batch_scheduling import use_batch_scheduling


def policy_after(chosen: int) -> int:
    """Return the policy of a thread with policy `chosen`, after it asked for batch scheduling."""
    os.sched_setscheduler(0, chosen, os.sched_param(0))
    use_batch_scheduling()
    return os.sched_getscheduler(0)


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        (os.SCHED_OTHER, os.SCHED_BATCH),
        (os.SCHED_BATCH, os.SCHED_BATCH),
        (os.SCHED_IDLE, os.SCHED_IDLE),
    ],
)
def test_default_policy_becomes_batch_and_a_chosen_one_stays(chosen, kept):
    """Only the default policy is replaced; one that the operator has chosen stays."""
    with ThreadPoolExecutor(1) as own_thread:  # the policy is that of a thread
        assert own_thread.submit(policy_after, chosen).result() == kept
