"""The settings of Python's garbage collector."""

from __future__ import annotations

import gc
from typing import Final

COLLECTION_THRESHOLD: Final = 10_000
"""Net allocations between two collections of the youngest generation; Python's default is 700."""


def freeze_startup_objects() -> None:
    """Exclude all objects made so far from garbage collection, and collect less often.

    Modules and prepared statements live as long as the process, and traversing them again and
    again costs a large share of every call. Most later objects are freed by reference counting.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTION_THRESHOLD)
