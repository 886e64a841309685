"""Observe: every call, also a refused one, is timed, counted and traced with its true code."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import grpc
from opentelemetry import trace

from milepost import telemetry
from milepost.access.running_calls import RunningCalls
from milepost.telemetry import conventions

if TYPE_CHECKING:
    from milepost.rpc.call import Context, RpcCall
    from milepost.rpc.interceptors.chain import CallNext

CODES: Final[dict[object, str]] = {code.value[0]: code.name for code in grpc.StatusCode} | {
    code: code.name for code in grpc.StatusCode
}
_OUR_FAULT: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""The codes that make a server span an error (OpenTelemetry's gRPC conventions)."""

_ROUNDED: Final = 0.01
"""Share by which gRPC's core may round up the timeout that a client sends."""
_TRAVEL_S: Final = 0.02
"""Delay of a deadline on the server: a client sends a timeout, which begins on arrival."""


class Observe:
    """The outermost interceptor. It also knows which calls are running.

    gRPC's own ``stop`` does not wait for handlers that have aborted (grpc #37239), so the
    service counts them itself.
    """

    def __init__(self, tracing: telemetry.Tracing, address: str) -> None:
        """Start with no call running, on the port at `address`."""
        self._tracing = tracing
        self._server = conventions.server(conventions.place_of_listener(address))
        self.running = RunningCalls()
        telemetry.count_running("grpc", lambda: self.running.count)

    async def intercept(
        self, call_next: CallNext, call: RpcCall, request: Any, context: Context
    ) -> Any:
        """Measure the call."""
        self.running.enter()
        start = time.perf_counter()
        name = call.method.name
        traced = self._tracing.start(name, call.metadata.get("traceparent"), peer=call.peer)
        span = traced.span
        code = "OK"
        try:
            if span is None:
                answer = await call_next(call, request, context)
            else:
                span.set_attributes(conventions.rpc_call(name) | self._server)
                span.set_attributes(conventions.client(conventions.place_of_peer(call.peer)))
                with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                    answer = await call_next(call, request, context)
            code = _code(context)
        except asyncio.CancelledError:
            # No code is set: the caller cancelled or disconnected, or its deadline passed.
            late = is_deadline(context.time_remaining(), ran=time.perf_counter() - start)
            code = "DEADLINE_EXCEEDED" if late else "CANCELLED"
            raise
        except BaseException:
            code = _code(context)
            raise
        else:
            return answer
        finally:
            if span is not None:
                error = code if code in _OUR_FAULT else None
                traced.end({"rpc.response.status_code": code}, error=error)
            telemetry.record_call(name, code, time.perf_counter() - start)
            self.running.leave()


def is_deadline(remaining: float | None, *, ran: float) -> bool:
    """Return True if a call that its caller ended had reached its deadline.

    At its deadline the caller sends what it sends when it cancels (the gRPC protocol has one
    RST_STREAM for both). The deadline of the server is a little later: gRPC's core rounds
    `grpc-timeout` up to two or three digits, and the server counts from the arrival of the call.

    Args:
        remaining: seconds to the deadline of the server; None if the call has no deadline.
        ran: seconds since the start of the call.
    """
    return remaining is not None and remaining <= _TRAVEL_S + _ROUNDED * (ran + remaining)


def _code(context: Context) -> str:
    # Typed as a StatusCode, but in fact a number, or nothing before the call has ended.
    code: object = context.code()
    return CODES.get(code, "OK")
