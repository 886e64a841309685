"""The scheduling policy of the process on Linux."""

from __future__ import annotations

import contextlib
import os
import sys


def use_batch_scheduling() -> None:
    """Run the threads of this process under SCHED_BATCH (sched(7)), so that none preempts another.

    Each call wakes threads of gRPC several times, for microseconds each, and every wake-up would
    preempt the running thread. Threads that start later inherit the policy. A policy that the
    operator has chosen for the process is kept, as is the policy of a system that refuses this.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
