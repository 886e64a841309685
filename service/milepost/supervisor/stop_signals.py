"""The signals that let a process drain instead of ending it at once."""

from __future__ import annotations

import signal
from typing import Final

STOP_SIGNALS: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""All that end a process by default and are sent on purpose, except SIGHUP, which reloads."""
