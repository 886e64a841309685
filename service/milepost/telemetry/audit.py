"""The audit log: every change and every refusal has one line, which says who did what, and how.

Secrets, payloads and tokens never come this far: every field of a line is named here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from milepost.domain.operation import ID_PATTERN, OperationId
from milepost.domain.transitions import Transition
from milepost.telemetry import metrics
from milepost.telemetry.logs import log
from milepost.telemetry.tracing import current, join_trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from milepost.domain.operation import Operation, Principal
    from milepost.domain.transitions import TransitionResult

# --- what happened to operations ---


def record_transition(transition: Transition, outcome: TransitionResult, by: Principal) -> None:
    """Count a committed transition, log it, and join its span to the trace of the operation."""
    operation = outcome.operation
    join_trace(operation.id, operation.trace_context)
    if outcome.replayed:
        return
    metrics.transitions[transition].inc()
    fields = _transition(transition, operation)
    # Progress changes neither, and is so frequent that its line is kept short.
    if transition is not Transition.PROGRESS:
        _observe_end(operation)
        fields |= _times(operation)
    fields |= _who(by)
    log.info("operation changed", **fields)


def _observe_end(operation: Operation) -> None:
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


def record_delete(operation_id: OperationId, by: Principal) -> None:
    """Count and log that an operation was removed, and name it on the span."""
    join_trace(operation_id, None)
    metrics.transitions[Transition.PURGE].inc()
    what = {"code": "OK", "transition": str(Transition.PURGE), "operation_id": operation_id}
    log.info("operation changed", **what, **_who(by))


# --- what the sweeper did ---

_LOSSES: Final = frozenset({Transition.RELEASE, Transition.ABANDON})


def record_sweep(transition: Transition, swept: Sequence[Operation]) -> None:
    """Count the sweeper's transitions of one batch, and log those that changed a status."""
    metrics.transitions[transition].inc(len(swept))
    if transition in _LOSSES:
        metrics.leases_lost.inc(len(swept))
    if transition is Transition.PURGE:  # removals are many, and told by the line of their pass
        return
    for operation in swept:
        _observe_end(operation)
        fields = _transition(transition, operation) | _times(operation) | {"principal": "milepost"}
        log.info("operation changed", **fields)


def record_pass(kind: str, moved: Mapping[Transition, int], *, more: bool) -> None:
    """Count a pass of the sweeper, and log it if it did something."""
    metrics.passes.labels(kind).inc()
    if any(moved.values()):
        log.info("swept", kind=kind, more=more, **{str(m): n for m, n in moved.items() if n})


def record_purged_events(operations: int) -> None:
    """Log of how many operations the events were removed, if of any."""
    if operations:
        log.info("events removed", operations=operations)


def record_failure(task: str, error: Exception, *, expected: bool) -> None:
    """Count and log a failed round of work in the background, which goes on."""
    metrics.failures.labels(task).inc()
    log.warning(
        "background task failed",
        task=task,
        error=type(error).__name__,
        exc_info=None if expected else error,
    )


# --- the rest of the audit log ---


def record_change(by: Principal, named: Mapping[str, object]) -> None:
    """Log that a call changed, or gave away, something that is no operation.

    Args:
        by: who called.
        named: what it was about, by the names of its fields.
    """
    log.info("call answered", code="OK", **named, **_who(by))


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
        **_who(by),
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
        **_who(by),
    )


def _who(by: Principal | None) -> dict[str, str | None]:
    """Return who called what, and from where; work that no call asked for has a caller only."""
    call = current.get()
    who = {
        "principal": None if by is None else by.subject,
        "credential_id": None if by is None else by.credential_id,
    }
    if call is not None and call.method:
        who["method"] = call.method
        who["peer"] = call.peer
    return who
