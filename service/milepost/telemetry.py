"""Traces, metrics and log lines: what the outside can see of the service.

Nothing here changes what the service does, and a missing collector is fine. Secrets, payloads
and tokens never come this far: every field of a line is named where it is written.
"""

from __future__ import annotations

import contextlib
import logging
import random
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

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
from milepost.domain.operation import ID_PATTERN, OperationId
from milepost.logtext import LineWriter, as_json_line, for_people, neutralise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import timedelta

    from opentelemetry.trace import Span, SpanContext
    from structlog.typing import EventDict, FilteringBoundLogger

    from milepost.domain.api_key import ApiKey
    from milepost.domain.operation import Operation, Principal
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
refusals: Final = Counter(
    "milepost_limited_total", "Calls refused by a limit", ["limit"], registry=registry
)
buckets: Final = Gauge(
    "milepost_limit_buckets", "Token buckets that this replica remembers", registry=registry
)
limits_shared: Final = Gauge(
    "milepost_limits_shared", "1 while all replicas share their limits, else 0", registry=registry
)
limits_lost: Final = Counter(
    "milepost_limits_lost_total",
    "How often the shared limits were lost, and limits became local",
    registry=registry,
)

log: FilteringBoundLogger = structlog.get_logger()
_threshold: Final = logging.getLogger("milepost")
"""Knows the level in force, and tells it in a tenth of the time that `log` needs."""
_propagator: Final = TraceContextTextMapPropagator()


# --- set-up ---


def configure_logs(*, level: str, as_json: bool) -> None:
    """Write log lines to standard error: JSON, or readable with colours."""
    _threshold.setLevel(level.upper())
    renderer = as_json_line if as_json else for_people(structlog.dev.ConsoleRenderer())
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_trace,
            structlog.processors.format_exc_info,
            neutralise,
            renderer,
        ],
        logger_factory=lambda *_: LineWriter(sys.stderr),
        cache_logger_on_first_use=True,
    )


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

    def start(
        self,
        method: str,
        metadata: Mapping[str, str | bytes],
        peer: Callable[[], str] = str,
    ) -> Span | None:
        """Start the span of one call, as a child of the caller's if it sent a traceparent.

        A call that is not sampled gets no span: it costs nothing but a trace id, and that only
        when somebody asks for it; `peer` tells where it came from, and is asked likewise.
        Attributes follow the RPC semantic conventions of OpenTelemetry (release candidate).
        """
        parent = metadata.get("traceparent")
        current = _Trace(method, peer)
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

    @contextlib.contextmanager
    def joining(
        self, name: str, created: str | None, attributes: Mapping[str, str | int]
    ) -> Iterator[tuple[Span | None, str | None]]:
        """Go on with the trace `created`, of an operation, in work that no call asked for.

        Gives a span, if that trace is recorded, and the traceparent to send on. Whoever takes
        the span ends it; it ends anyway when the work breaks.
        """
        current = _Trace()
        context = _propagator.extract({"traceparent": created}) if created else None
        parent = trace.get_current_span(context).get_span_context()
        if context is not None and parent.is_valid:
            current.known = _ids_of(parent)
            if parent.trace_flags.sampled:
                current.span = self._tracer.start_span(
                    name, context=context, kind=trace.SpanKind.CLIENT, attributes=dict(attributes)
                )
        token = _current.set(current)
        try:
            yield current.span, current_traceparent() if created else None
        finally:
            _current.reset(token)
            if current.span is not None and current.span.is_recording():
                current.span.end()

    def record(
        self,
        name: str,
        begun: int,
        attributes: Mapping[str, str | int | bool],
        *,
        created: str | None = None,
    ) -> None:
        """Make a span of work that no call asked for, now that there was something to do.

        Args:
            name: of the work.
            begun: when, in nanoseconds since 1970.
            attributes: of the span.
            created: the trace of an operation, which the work goes on with if that is recorded;
                without it the span has a trace of its own.
        """
        context = _propagator.extract({"traceparent": created}) if created else None
        parent = trace.get_current_span(context).get_span_context()
        if created is None or parent.trace_flags.sampled:
            self._tracer.start_span(
                name, context=context, start_time=begun, attributes=dict(attributes)
            ).end()

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
    """A call and its trace. Without a span, its ids are made when they are needed."""

    __slots__ = ("_ids", "known", "method", "peer", "span")

    def __init__(self, method: str = "", peer: Callable[[], str] = str) -> None:
        self.method = method
        self.peer = peer
        self.span: Span | None = None
        self.known: tuple[str, str, int] | None = None
        self._ids: tuple[str, str, int] | None = None

    @property
    def ids(self) -> tuple[str, str, int]:
        """The trace id and the span id in hexadecimal digits, and the trace flags."""
        if self._ids is None:
            own = self.known or _fresh_ids()
            self._ids = own if self.span is None else _ids_of(self.span.get_span_context())
        return self._ids


def _fresh_ids() -> tuple[str, str, int]:
    return f"{random.getrandbits(128) or 1:032x}", f"{random.getrandbits(64) or 1:016x}", 0


def _ids_of(context: SpanContext) -> tuple[str, str, int]:
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


def join_trace(operation_id: OperationId, trace_context: str | None) -> None:
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
"""Moves that are too many for a log line each: they have theirs at the level debug."""
_moves: Final = {move: moves.labels(move.value) for move in Move}


def record_move(move: Move, outcome: Outcome, by: Principal) -> None:
    """Count a committed move, log it, and join its span to the trace of the operation."""
    operation = outcome.operation
    join_trace(operation.id, operation.trace_context)
    if outcome.replayed:
        return
    _moves[move].inc()
    _observe_end(operation)
    quiet = move in _QUIET
    if not quiet or _threshold.isEnabledFor(logging.DEBUG):
        _log_move(
            logging.DEBUG if quiet else logging.INFO,
            move,
            operation,
            code="OK",
            **_call(),
            **_identity(by),
        )


def _observe_end(operation: Operation) -> None:
    if (end := operation.complete_time or operation.cancel_time) and operation.start_time:
        durations.labels(operation.status).observe(_seconds(end - operation.start_time))


def _log_move(level: int, move: Move, operation: Operation, **who: str | None) -> None:
    log.log(
        level,
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
    """Count and log that an operation was removed, and name it on the span."""
    join_trace(operation_id, None)
    _moves[Move.FORGET].inc()
    log.info(
        "operation moved",
        move="forget",
        operation_id=operation_id,
        code="OK",
        **_call(),
        **_identity(by),
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
        _log_move(logging.INFO, move, operation, principal="milepost")


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


# --- the rest of the audit log ---


def record_change(by: Principal, named: Mapping[str, str]) -> None:
    """Log that a call changed, or gave away, something that is no operation.

    Args:
        by: who called.
        named: the ids of what it was about, by the names of their fields.
    """
    log.info("call answered", code="OK", **named, **_call(), **_identity(by))


def record_refusal(
    by: Principal | None,
    named: Mapping[str, str],
    *,
    code: str,
    reason: str,
    facts: Mapping[str, str],
) -> None:
    """Log that a call, or one item of a stream, was refused; its span gets the operation's id.

    Args:
        by: who called, if that was found out.
        named: the ids that were asked about, by the names of their fields, however malformed.
        code: of gRPC.
        reason: of the error.
        facts: of the error.
    """
    operation_id = named.get("operation_id")
    if operation_id is not None and ID_PATTERN.fullmatch(operation_id):
        join_trace(OperationId(operation_id), None)
    log.warning(
        "call refused",
        code=code,
        reason=reason,
        **{"operation_id": None, **named},
        **_call(),
        **_identity(by),
        **{f"fact_{name}": value for name, value in facts.items()},
    )


def record_defect(error: Exception, by: Principal | None, named: Mapping[str, str]) -> None:
    """Log an exception that nobody foresaw, and that its caller is not told."""
    log.error(
        "call failed",
        code="INTERNAL",
        reason="INTERNAL",
        exc_info=error,
        **named,
        **_call(),
        **_identity(by),
    )


def _call() -> dict[str, str]:
    """Return which call it is, and from where."""
    current = _current.get()
    return (
        {}
        if current is None or not current.method
        else {"method": current.method, "peer": current.peer()}
    )


def _identity(by: Principal | None) -> dict[str, str | None]:
    if by is None:
        return {"principal": None, "credential_id": None}
    return {"principal": by.subject, "credential_id": by.credential_id}


def record_key(change: str, key: ApiKey, by: Principal) -> None:
    """Log that an API key was created or revoked."""
    log.info(
        "API key changed",
        change=change,
        key_id=key.key_id,
        subject=key.subject,
        roles=" ".join(sorted(key.roles)),
        functions=" ".join(key.functions),
        expire_time=key.expire_time.isoformat() if key.expire_time else None,
        principal=by.subject,
        credential_id=by.credential_id,
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


def record_limited(limit: str) -> None:
    """Count a call that a limit refused; `limit` is a word, never a principal."""
    refusals.labels(limit).inc()


def metrics_page() -> bytes:
    """Return all metrics in the text format of Prometheus."""
    return generate_latest(registry)
