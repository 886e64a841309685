"""Observe: every call, also a refused one, is timed, counted and traced with its true code."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc
from opentelemetry import trace

from milepost import telemetry

if TYPE_CHECKING:
    from milepost.rpc.interceptors.chain import Context, Proceed

CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode} | {
    code: code.name for code in grpc.StatusCode
}
_OUR_FAULT: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""The codes that make a server span an error (OpenTelemetry's gRPC conventions)."""


class Observe:
    """The outermost link. It also knows which calls are running.

    gRPC's own ``stop`` does not wait for handlers that have aborted (grpc #37239), so the
    service counts them itself.
    """

    def __init__(self) -> None:
        """Start with no call running."""
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Return when no call is running."""
        await self._idle.wait()

    async def around(
        self, method: str, request: Any, context: Context, proceed: Proceed
    ) -> Any:
        """Measure the call."""
        self._enter()
        clock = telemetry.CallClock(method)
        span = telemetry.start_server_span(method, dict(context.invocation_metadata() or ()))
        code = "OK"
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                answer = await proceed(request, context)
            code = _code(context)
        except asyncio.CancelledError:
            # Nobody has set a code: the caller went away, or its deadline passed.
            remaining = context.time_remaining()
            late = remaining is not None and remaining <= 0
            code = "DEADLINE_EXCEEDED" if late else "CANCELLED"
            raise
        except BaseException:
            code = _code(context)
            raise
        else:
            return answer
        finally:
            telemetry.end_server_span(span, code, failed=code in _OUR_FAULT)
            clock.stop(code)
            self._leave()

    def _enter(self) -> None:
        self._running += 1
        telemetry.rpcs_running.inc()
        self._idle.clear()

    def _leave(self) -> None:
        self._running -= 1
        telemetry.rpcs_running.dec()
        if self._running == 0:
            self._idle.set()


def _code(context: Context) -> str:
    code = context.code()
    return CODES.get(code, "OK") if code else "OK"
