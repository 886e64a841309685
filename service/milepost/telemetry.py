"""Traces, metrics and log lines: what the outside can see of the service.

Nothing here changes what the service does, and a missing collector is fine. Secrets, payloads
and tokens never come this far: every field of a line is named where it is written.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TextIO

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from milepost.domain.lifecycle import Move

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from opentelemetry.trace import Span
    from structlog.typing import EventDict, FilteringBoundLogger

    from milepost.domain.operation import Operation, OperationId, Principal
    from milepost.domain.ports import Outcome

LEVELS: Final = ("debug", "info", "warning", "error")
FLUSH_TIMEOUT_MS: Final = 5_000

registry: Final = CollectorRegistry()
rpcs: Final = Histogram(
    "milepost_rpc_duration_seconds",
    "Time from the arrival of a call to its end",
    ["method", "code"],
    registry=registry,
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
rpcs_running: Final = Gauge("milepost_rpcs_running", "Calls in flight", registry=registry)
moves: Final = Counter(
    "milepost_moves_total", "Committed moves of operations", ["move"], registry=registry
)
durations: Final = Histogram(
    "milepost_operation_duration_seconds",
    "Time from the start of an operation to its end",
    ["status"],
    registry=registry,
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600),
)
leases_lost: Final = Counter(
    "milepost_leases_lost_total", "Leases that ran out before the work was done", registry=registry
)
passes: Final = Counter(
    "milepost_sweeper_passes_total", "Passes of the sweeper that ended", ["kind"], registry=registry
)
failures: Final = Counter(
    "milepost_background_failures_total",
    "Failed rounds of work in the background",
    ["task"],
    registry=registry,
)
overdue: Final = Gauge(
    "milepost_operations_overdue",
    "Operations whose instant has passed without the move that was due then; 0 if all is well",
    ["move"],
    registry=registry,
)
progress_streams: Final = Gauge(
    "milepost_progress_streams", "Progress streams that are open", registry=registry
)
progress_updates: Final = Counter(
    "milepost_progress_updates_total",
    "Updates on progress streams: received, and of these coalesced with a newer one, committed or"
    " refused",
    ["fate"],
    registry=registry,
)

log: FilteringBoundLogger = structlog.get_logger()
_propagator: Final = TraceContextTextMapPropagator()


# --- set-up ---


def configure_logs(*, level: str, as_json: bool) -> None:
    """Write log lines to standard error: JSON, or readable with colours."""
    renderer = _as_json if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_trace,
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=lambda *_: _LineWriter(sys.stderr),
        cache_logger_on_first_use=True,
    )


class _LineWriter:
    """Writes the lines of one turn of the event loop at once; outside of a loop, each at once.

    A write for every line would let go of the interpreter lock in the middle of every call.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lines: list[str] = []

    def msg(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self._write)
        except RuntimeError:
            self._write()

    debug = info = warning = error = critical = exception = msg

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        self._file.write("\n".join(lines) + "\n")
        self._file.flush()


_encode: Final = json.JSONEncoder(default=repr).encode


def _as_json(_logger: object, _method: str, event: EventDict) -> str:
    return _encode(event)


def _add_trace(_logger: object, _method: str, event: EventDict) -> EventDict:
    current = _current.get()
    if current is not None:
        event["trace_id"] = current.ids[0]
    return event


def configure_traces(*, endpoint: str | None, ratio: float, version: str) -> Tracing:
    """Start traces, and send the sampled share of them to an OTLP collector if there is one."""
    provider = TracerProvider(
        # What begins here was sampled in `Tracing.start`, before anything was paid for it.
        sampler=ParentBased(ALWAYS_ON),
        resource=Resource.create({"service.name": "milepost", "service.version": version}),
    )
    if endpoint:
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider, ratio if endpoint else 0.0)


# --- traces ---


class Tracing:
    """Makes spans, for the sampled share of the traces that begin here and all that go on."""

    def __init__(self, provider: TracerProvider, ratio: float) -> None:
        """Record `ratio` (0 to 1) of the traces that no caller has begun."""
        self._provider = provider
        self._tracer = provider.get_tracer("milepost")
        self._ratio = ratio

    def start(self, method: str, metadata: Mapping[str, str | bytes]) -> Span | None:
        """Start the span of one call, as a child of the caller's if it sent a traceparent.

        A call that is not sampled gets no span: it costs nothing but a trace id, and that only
        when somebody asks for it. Attributes follow the RPC semantic conventions of
        OpenTelemetry (release candidate).
        """
        parent = metadata.get("traceparent")
        current = _Trace()
        _current.set(current)
        if parent is None and random.random() >= self._ratio:  # noqa: S311 - a sample
            return None
        current.span = self._tracer.start_span(
            method,
            context=_propagator.extract({"traceparent": parent}) if parent else None,
            kind=trace.SpanKind.SERVER,
            attributes={"rpc.system.name": "grpc", "rpc.method": method},
        )
        return current.span

    def stop(self) -> None:
        """Send what is left, within a bounded time."""
        self._provider.force_flush(FLUSH_TIMEOUT_MS)
        self._provider.shutdown()


def end_span(span: Span, code: str, *, failed: bool) -> None:
    """End the span of a call with its true code."""
    if span.is_recording():
        span.set_attribute("rpc.response.status_code", code)
        if failed:
            span.set_status(trace.StatusCode.ERROR)
    span.end()


class _Trace:
    """The trace of a call. Without a span, its ids are made when they are needed."""

    __slots__ = ("_ids", "span")

    def __init__(self) -> None:
        self.span: Span | None = None
        self._ids: tuple[str, str, int] | None = None

    @property
    def ids(self) -> tuple[str, str, int]:
        """The trace id and the span id in hexadecimal digits, and the trace flags."""
        if self._ids is None:
            self._ids = _fresh_ids() if self.span is None else _ids_of(self.span)
        return self._ids


def _fresh_ids() -> tuple[str, str, int]:
    return f"{random.getrandbits(128) or 1:032x}", f"{random.getrandbits(64) or 1:016x}", 0


def _ids_of(span: Span) -> tuple[str, str, int]:
    context = span.get_span_context()
    return (
        trace.format_trace_id(context.trace_id),
        trace.format_span_id(context.span_id),
        context.trace_flags,
    )


_current: Final[ContextVar[_Trace | None]] = ContextVar("milepost_trace", default=None)


def current_traceparent() -> str | None:
    """Return the W3C traceparent of the current call."""
    current = _current.get()
    return None if current is None else "00-{}-{}-{:02x}".format(*current.ids)


def current_trace_id() -> str:
    """Return the id under which the log has the detail of this call."""
    current = _current.get()
    return "none" if current is None else current.ids[0]


def _join_trace(operation_id: OperationId, trace_context: str | None) -> None:
    """Make the current span findable by operation, and link it to the trace of the create."""
    current = _current.get()
    span = current.span if current is not None else None
    if span is None or not span.is_recording():
        return
    span.set_attribute("milepost.operation.id", operation_id)
    if trace_context is not None:
        created = trace.get_current_span(
            _propagator.extract({"traceparent": trace_context})
        ).get_span_context()
        if created.trace_id != span.get_span_context().trace_id:
            span.add_link(created)


# --- what happened to operations ---

_QUIET: Final = frozenset({Move.PROGRESS})
"""Moves that are too many for a log line each."""
_moves: Final = {move: moves.labels(move.value) for move in Move}


def record_move(move: Move, outcome: Outcome, by: Principal) -> None:
    """Count a committed move, log it, and join its span to the trace of the operation."""
    operation = outcome.operation
    _join_trace(operation.id, operation.trace_context)
    if outcome.replayed:
        return
    _moves[move].inc()
    _observe_end(operation)
    if move not in _QUIET:
        _log_move(move, operation, principal=by.subject, credential_id=by.credential_id)


def _observe_end(operation: Operation) -> None:
    if (end := operation.complete_time or operation.cancel_time) and operation.start_time:
        durations.labels(operation.status).observe(_seconds(end - operation.start_time))


def _log_move(move: Move, operation: Operation, **who: str) -> None:
    log.info(
        "operation moved",
        move=str(move),
        operation_id=operation.id,
        function=operation.function,
        status=str(operation.status),
        revision=operation.revision,
        ttl_s=_seconds(operation.ttl),
        expire_time=operation.expire_time.isoformat(),
        **who,
    )


def record_forget(operation_id: OperationId, by: Principal) -> None:
    """Count and log that an operation was removed."""
    _moves[Move.FORGET].inc()
    log.info(
        "operation moved",
        move="forget",
        operation_id=operation_id,
        principal=by.subject,
        credential_id=by.credential_id,
    )


# --- what the sweeper did ---

_LOSSES: Final = frozenset({Move.RELEASE, Move.ABANDON})


def record_sweep(move: Move, swept: Sequence[Operation]) -> None:
    """Count the sweeper's moves of one batch, and log those that changed a status."""
    _moves[move].inc(len(swept))
    if move in _LOSSES:
        leases_lost.inc(len(swept))
    if move is Move.FORGET:  # removals are many, and told by the line of their pass
        return
    for operation in swept:
        _observe_end(operation)
        _log_move(move, operation, principal="milepost")


def record_pass(kind: str, moved: Mapping[Move, int], *, more: bool) -> None:
    """Count a pass of the sweeper, and log it if it did something."""
    passes.labels(kind).inc()
    if any(moved.values()):
        log.info("swept", kind=kind, more=more, **{str(m): n for m, n in moved.items() if n})


def record_forgotten_events(operations: int) -> None:
    """Log of how many operations the events were removed, if of any."""
    if operations:
        log.info("events removed", operations=operations)


def record_overdue(counts: Mapping[Move, int]) -> None:
    """Show how many operations are overdue, by the move that is due."""
    for move, number in counts.items():
        overdue.labels(move.value).set(number)


def record_failure(task: str, error: Exception, *, expected: bool) -> None:
    """Count and log a failed round of work in the background, which goes on."""
    failures.labels(task).inc()
    log.warning(
        "background task failed",
        task=task,
        error=type(error).__name__,
        exc_info=None if expected else error,
    )


def _seconds(duration: timedelta) -> float:
    return duration.total_seconds()


# --- progress streams ---

update_received: Final = progress_updates.labels("received").inc
update_coalesced: Final = progress_updates.labels("coalesced").inc
update_committed: Final = progress_updates.labels("committed").inc
update_refused: Final = progress_updates.labels("refused").inc


# --- calls ---

_durations: Final[dict[tuple[str, str], Histogram]] = {}


def record_call(method: str, code: str, seconds: float) -> None:
    """Count one call, and how long it took, under its true code."""
    child = _durations.get((method, code))
    if child is None:
        child = _durations[method, code] = rpcs.labels(method, code)
    child.observe(seconds)


def metrics_page() -> bytes:
    """Return all metrics in the text format of Prometheus."""
    return generate_latest(registry)
