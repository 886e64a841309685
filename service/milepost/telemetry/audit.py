"""The audit log: one line for each change and each refusal, with the caller and the outcome.

Every field of a line is listed here. None holds a secret, a payload or a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.domain.operation import ID_PATTERN, OperationId
from milepost.domain.sweep import CANCEL_LOST
from milepost.domain.transitions import LEASE_LOST, Transition
from milepost.telemetry import metrics, operation_metrics
from milepost.telemetry.call_trace import current, join_trace
from milepost.telemetry.life_spans import record_life
from milepost.telemetry.logs import log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from milepost.domain.event_days import EventDays
    from milepost.domain.operation import Operation, OperationError, Principal
    from milepost.domain.sweep import Sweep
    from milepost.domain.transitions import TransitionResult

# --- operations ---


def record_transition(
    transition: Transition,
    outcome: TransitionResult,
    by: Principal,
    *,
    begun: int,
    errors: Sequence[OperationError] = (),
) -> None:
    """Count and log a committed transition, and record it in the trace of the operation.

    Args:
        transition: what happened.
        outcome: the operation after it.
        by: the caller.
        begun: when the work on it began, in nanoseconds since 1970.
        errors: why the attempt failed, if it did.
    """
    operation = outcome.operation
    join_trace(operation.id, operation.trace_context)
    if outcome.replayed:
        return
    record_life(transition, operation, begun, errors=errors)
    metrics.transitions[transition].inc()
    fields = _transition(transition, operation)
    # Progress changes neither of the times, and is so frequent that its line is kept short.
    if transition is not Transition.PROGRESS:
        operation_metrics.count_transition(transition, operation)
        _observe_duration(operation)
        fields |= _times(operation)
    fields |= _caller(by)
    log.info("operation changed", **fields)


def _observe_duration(operation: Operation) -> None:
    if (end := operation.complete_time or operation.cancel_time) and operation.start_time:
        took = (end - operation.start_time).total_seconds()
        metrics.durations.labels(operation.status).observe(took)


def _transition(transition: Transition, operation: Operation) -> dict[str, object]:
    return {
        "code": "OK",
        "transition": str(transition),
        "operation_id": operation.id,
        "function": operation.function,
        "status": str(operation.status),
        "revision": operation.revision,
    }


def _times(operation: Operation) -> dict[str, object]:
    return {
        "ttl_s": operation.ttl.total_seconds(),
        "expire_time": operation.expire_time.isoformat(),
    }


def record_delete(
    operation_id: OperationId, outcome: TransitionResult | None, by: Principal, *, begun: int
) -> None:
    """Count and log the deletion of an operation, and record it in its trace.

    Args:
        operation_id: the operation.
        outcome: its last state; None if an earlier call deleted it.
        by: the caller.
        begun: when the work on it began, in nanoseconds since 1970.
    """
    operation = None if outcome is None else outcome.operation
    join_trace(operation_id, None if operation is None else operation.trace_context)
    if operation is not None:
        record_life(Transition.PURGE, operation, begun)
    metrics.transitions[Transition.PURGE].inc()
    log.info(
        "operation changed",
        code="OK",
        transition=str(Transition.PURGE),
        operation_id=operation_id,
        **_caller(by),
    )


# --- the sweeper ---


def record_sweep(sweep: Sweep, swept: Sequence[Operation], *, begun: int) -> None:
    """Count and trace the transitions of one batch, and log those that changed a status.

    Args:
        sweep: the cause.
        swept: the operations after it.
        begun: when the work on the batch began, in nanoseconds since 1970.
    """
    transition = sweep.transition
    metrics.transitions[transition].inc(len(swept))
    for operation in swept:
        record_life(transition, operation, begun, sweep=sweep)
    if transition is Transition.PURGE:  # purges are many; the line of the pass has their number
        return
    is_lease_lost = sweep.code == LEASE_LOST or sweep is CANCEL_LOST
    for operation in swept:
        if is_lease_lost:
            operation_metrics.count_lost_lease(operation)
        operation_metrics.count_transition(transition, operation)
        _observe_duration(operation)
        fields = _transition(transition, operation) | _times(operation) | {"principal": "milepost"}
        log.info("operation changed", **fields)


def record_pass(kind: str, counts: Mapping[Sweep, int], *, more: bool) -> None:
    """Count a pass of the sweeper, and log it if it changed or purged operations."""
    metrics.passes.labels(kind).inc()
    metrics.last_passes.labels(kind).set_to_current_time()
    if any(counts.values()):
        changed = {sweep.name: count for sweep, count in counts.items() if count}
        log.info("swept", kind=kind, more=more, **changed)


def record_purged_events(operations: int, *, more: bool) -> None:
    """Log the number of operations whose events were purged, unless it is 0."""
    if operations:
        log.info("events purged", more=more, operations=operations)


def record_event_days(days: EventDays, *, is_new: bool) -> None:
    """Log the days of events that were made and dropped, or once that none may be."""
    if days.made or days.dropped:
        log.info("event days changed", made=list(days.made), dropped=list(days.dropped))
    if is_new and not days.is_permitted:
        log.warning("event days not kept", problem="the role of the service may not change tables")


def record_interruption(length: timedelta) -> None:
    """Log that for a while no replica could take renewals of leases."""
    log.warning("leases could not be renewed", seconds=round(length.total_seconds(), 1))


def record_failure(
    task: str, error: Exception, *, expected: bool, is_repeated: bool = False
) -> None:
    """Count a failed run of a periodic task, and log it unless it repeats the last one.

    The task runs again.
    """
    metrics.failures.labels(task).inc()
    if is_repeated:
        return
    log.warning(
        "background task failed",
        task=task,
        error=type(error).__name__,
        exc_info=None if expected else error,
    )


# --- other calls ---


def record_change(by: Principal, ids: Mapping[str, object]) -> None:
    """Log that a call changed or disclosed something other than an operation.

    Args:
        by: the caller.
        ids: the ids that the call concerned, by field name.
    """
    log.info("call answered", code="OK", **ids, **_caller(by))


def record_refusal(
    by: Principal | None,
    ids: Mapping[str, str],
    *,
    code: str,
    reason: str,
    facts: Mapping[str, str],
) -> None:
    """Log the refusal of a call or of one item of a stream; set the operation's id on its span.

    Args:
        by: the caller, or None if it is not authenticated.
        ids: the ids in the request by field name, malformed ones included.
        code: gRPC status code.
        reason: reason of the error.
        facts: facts of the error.
    """
    operation_id = ids.get("operation_id")
    if operation_id is not None and ID_PATTERN.fullmatch(operation_id):
        join_trace(OperationId(operation_id), None)
    log.warning(
        "call refused",
        code=code,
        reason=reason,
        **{"operation_id": None, **ids},
        **_caller(by),
        **{f"fact_{name}": value for name, value in facts.items()},
    )


def record_defect(error: Exception, by: Principal | None, ids: Mapping[str, str]) -> None:
    """Log an unexpected exception. Its caller gets the trace id only."""
    log.error(
        "call failed",
        code="INTERNAL",
        reason="INTERNAL",
        exc_info=error,
        **ids,
        **_caller(by),
    )


def _caller(by: Principal | None) -> dict[str, str | None]:
    """Return the fields of the caller; without a current call, those of the principal only."""
    call = current.get()
    fields = {
        "principal": None if by is None else by.subject,
        "credential_id": None if by is None else by.credential_id,
    }
    if call is not None and call.method:
        fields["method"] = call.method
        fields["peer"] = call.peer
    return fields
