"""Signals to the process: SIGHUP reloads, and the others that would end it let it drain."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.supervisor.stop_signals import STOP_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable

_STANDARD_ERROR: Final = 2


def stop_signal(reload: Callable[[], object]) -> asyncio.Event:
    """Return an event that the first signal to stop sets; the second ends the process.

    SIGHUP calls `reload`, unless it is sent because the terminal of the process was closed.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    on_terminal = os.isatty(_STANDARD_ERROR)

    def on_signal(number: int) -> None:
        if stop.is_set():
            telemetry.finish_log()
            os._exit(128 + number)
        stop.set()

    def on_hang_up() -> None:
        if on_terminal and not os.isatty(_STANDARD_ERROR):
            stop.set()
            return
        reload()
        telemetry.log.info("reloaded")

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    loop.add_signal_handler(signal.SIGHUP, on_hang_up)
    return stop
