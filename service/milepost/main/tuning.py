"""How the process asks Linux and Python to treat it: for many calls rather than for one."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import Final

YOUNG_OBJECTS: Final = 10_000
"""How many are made before the garbage collector looks at them."""


def schedule_as_batch() -> None:
    """Let the threads of this process finish what they do instead of interrupting each other.

    A call wakes threads of gRPC seven times, each for microseconds. Where a core is shared, each
    of them would be let in at once: that was a fifth of every call. SCHED_BATCH (sched(7)) is
    inherited by the threads that begin later. What an operator has chosen, stays; where the system
    does not allow or know it, nothing changes.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def settle_heap() -> None:
    """Take all that was built so far out of the garbage collector's rounds, and make those fewer.

    Modules and statements live as long as the process. Looking at all of them again and again
    cost a third of every call. Most of what comes later is gone without the collector: looking
    after every 700 objects cost a webhook 6 % of its time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
