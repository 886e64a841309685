"""The life of an operation as one trace: a short span for each of its changes.

The spans continue the trace in which the operation was created, on whatever replica the change
happens and however much later. If that trace is sampled, the whole life is recorded; if not,
nothing of it is. They end with the change, so they are exported while the operation runs, and do
not wait for the end of the call that carried it.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

from opentelemetry.trace import Link, SpanKind

from milepost.domain.transitions import Transition
from milepost.telemetry import traceparent
from milepost.telemetry.call_trace import OPERATION_ID, current, end_span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext, Tracer

    from milepost.domain.operation import Operation, OperationError, OperationId
    from milepost.domain.sweep import Sweep
    from milepost.telemetry.call_trace import Trace

PROGRESS_INTERVAL_S: Final = 1.0
"""Time after a span of progress in which an operation gets no further one on this replica."""
MAX_THINNED: Final = 10_000
"""Operations whose last span of progress is known; of others the next progress has one."""
_FIRST: Final = frozenset({Transition.CLAIM, Transition.START})
_FAILING: Final = frozenset({Transition.FAIL, Transition.RETRY})
_NAME: Final = re.compile(r"[A-Z][A-Za-z0-9_]{0,63}")
_OTHER: Final = "_OTHER"
"""The class of an error that has none, by the conventions of OpenTelemetry."""


class Thinning:
    """Takes each operation once in an interval. Its memory is bounded."""

    def __init__(
        self,
        interval_s: float = PROGRESS_INTERVAL_S,
        max_operations: int = MAX_THINNED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without operations."""
        self._interval_s = interval_s
        self._max_operations = max_operations
        self._clock = clock
        self._times: dict[OperationId, float] = {}

    def __len__(self) -> int:
        """Return the number of operations that are known."""
        return len(self._times)

    def takes(self, operation_id: OperationId) -> bool:
        """Return whether the interval of the operation is over, and begin the next one if so."""
        now = self._clock()
        last = self._times.get(operation_id)
        if last is not None and now < last + self._interval_s:
            return False
        self._times.pop(operation_id, None)
        if len(self._times) >= self._max_operations:
            del self._times[next(iter(self._times))]
        self._times[operation_id] = now
        return True


_thinning: Final = Thinning()


def record_life(
    transition: Transition,
    operation: Operation,
    begun: int,
    *,
    errors: Sequence[OperationError] = (),
    sweep: Sweep | None = None,
) -> None:
    """Record a committed change, if the trace in which the operation was created is sampled.

    Args:
        transition: the change.
        operation: the operation after it.
        begun: start of the work on the change, in nanoseconds since 1970.
        errors: the errors that caused the change; by default those of the operation.
        sweep: the cause of a change by the sweeper.
    """
    if not traceparent.is_sampled(operation.trace_context):
        return
    work = current.get()
    if work is None or work.tracer is None:
        return
    if transition is Transition.PROGRESS and not _thinning.takes(operation.id):
        return
    created = traceparent.read(operation.trace_context)
    if created is None:
        return
    attributes = operation_attributes(operation)
    if sweep is not None:
        attributes["milepost.sweep"] = sweep.name
    context, links = _place(work, created)
    span = work.tracer.start_span(
        f"operation {transition}",
        context=context,
        kind=SpanKind.INTERNAL,
        attributes=attributes,
        links=links,
        start_time=begun,
    )
    end_span(span, _error(transition, errors or operation.errors, sweep))
    if transition is not Transition.PURGE:
        _record_phase(work.tracer, transition, operation, traceparent.context_of(created))


def operation_attributes(operation: Operation) -> dict[str, str | int | float]:
    """Return what spans say about an operation: nothing of its data, and no principal."""
    found: dict[str, str | int | float] = {
        OPERATION_ID: operation.id,
        "milepost.operation.function": operation.function,
        "milepost.operation.status": str(operation.status),
        "milepost.operation.revision": operation.revision,
        "milepost.operation.attempt": operation.attempt,
    }
    if operation.worker is not None:
        found["milepost.operation.worker"] = operation.worker
    if operation.progress is not None:
        found["milepost.operation.progress"] = operation.progress
    return found


def _place(work: Trace, created: SpanContext) -> tuple[Context, Sequence[Link]]:
    """Return the parent of a span of the life, and its link to the call that carried the change.

    In the trace of the create, the call itself is the parent.
    """
    call = work.recording
    if call is None:
        return traceparent.context_of(created), ()
    if call.trace_id == created.trace_id:
        return traceparent.context_of(call), ()
    work.link(created)
    return traceparent.context_of(created), (Link(call),)


def _error(
    transition: Transition, errors: Sequence[OperationError], sweep: Sweep | None
) -> str | None:
    """Return the code of the error that failed the operation or its attempt, if one did.

    A worker may write anything as a code: only a name is the class of an error.
    """
    if sweep is not None:
        return sweep.code
    if not errors or transition not in _FAILING:
        return None
    return errors[0].code if _NAME.fullmatch(errors[0].code) else _OTHER


def _record_phase(
    tracer: Tracer, transition: Transition, operation: Operation, context: Context
) -> None:
    """Record how long the operation was pending or processing, when that is over.

    The times are those of the database. Of several attempts only the last one is recorded.
    """
    end = operation.complete_time or operation.cancel_time
    pending_since = max(operation.create_time, operation.schedule_time or operation.create_time)
    if transition in _FIRST and operation.attempt == 1:
        name, begun, ended = "operation pending", pending_since, operation.start_time
    elif end is not None and operation.start_time is not None:
        name, begun, ended = "operation processing", operation.start_time, end
    elif end is not None and operation.attempt == 0:
        name, begun, ended = "operation pending", pending_since, end
    else:
        return
    attributes = operation_attributes(operation)
    span = tracer.start_span(
        name, context=context, attributes=attributes, start_time=_nanoseconds(begun)
    )
    span.end(_nanoseconds(max(begun, ended or begun)))


def _nanoseconds(time_: datetime) -> int:
    return round(time_.timestamp() * 1_000_000) * 1_000
