"""This replica as one of several processes of a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.supervisor.reports import ASK_METRICS, Report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from milepost.main.readiness import Readiness
    from milepost.supervisor import Assignment

LAST_REPORT_TIMEOUT_S: Final = 1.0
_QUESTIONS_BYTES: Final = 64


@contextlib.asynccontextmanager
async def reporting(
    assignment: Assignment | None, readiness: Readiness, stop: asyncio.Event
) -> AsyncIterator[None]:
    """Answer the supervisor inside of the context, if there is one, and report once at its end.

    Without its supervisor, however that ended, the replica stops as after SIGTERM.
    """
    if assignment is None:
        yield
        return
    # A rolling restart is the supervisor's part: SIGHUP to all processes must not end this one.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.set_inheritable(assignment.channel, False)  # noqa: FBT003 - its only parameter
    with socket.socket(fileno=assignment.channel) as channel:
        channel.settimeout(0)
        answering = asyncio.create_task(_answer(channel, readiness, stop))
        try:
            yield
        finally:
            answering.cancel()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(LAST_REPORT_TIMEOUT_S):
                    await _send(channel, readiness, with_metrics=True)


async def _answer(channel: socket.socket, readiness: Readiness, stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while questions := await loop.sock_recv(channel, _QUESTIONS_BYTES):
            await _send(channel, readiness, with_metrics=ASK_METRICS in questions)
    telemetry.log.warning("supervisor lost")
    stop.set()


async def _send(channel: socket.socket, readiness: Readiness, *, with_metrics: bool) -> None:
    metrics = telemetry.metrics_page()[0].decode() if with_metrics else None
    report = Report(problem=readiness.problem, degraded=dict(readiness.degraded), metrics=metrics)
    await asyncio.get_running_loop().sock_sendall(channel, report.line)
