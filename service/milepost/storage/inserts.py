"""The insert of new operations, once for each request_id and unique_key, within the quota."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.transitions import TABLE, Transition
from milepost.storage.dialects import Instant, Span, clock, later, latest, shorter
from milepost.storage.event_writer import REQUEST_INPUTS, EventWriter
from milepost.storage.quotas import QuotaReservation, has_quota, reserve
from milepost.storage.rows import COLUMNS
from milepost.storage.tables import operations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement

    from milepost.domain.operation import NewOperation, OperationId
    from milepost.storage.database import Database, Runnable
    from milepost.storage.effects import Inputs

_o = operations.c
_ONE: Final = sa.literal_column("1", sa.Integer)

INSERT: Final[Inputs] = {
    "id": sa.Text(),
    **REQUEST_INPUTS,
    "owner": sa.Text(),
    "function": sa.Text(),
    "version": sa.Text(),
    "metadata": sa.Text(),
    "original_request_id": sa.Text(),
    "callback_url": sa.Text(),
    "callback_events": sa.Text(),
    "ttl": _o.ttl.type,
    "retry_after": _o.retry_after.type,
    "max_attempts": sa.Integer(),
    "fingerprint": sa.Text(),
    "trace_context": sa.Text(),
    "priority": sa.Integer(),
    "schedule_time": Instant(),
    "unique_key": sa.Text(),
    "initial_backoff": Span(),
    "backoff_multiplier": sa.Double(),
    "max_backoff": Span(),
    "queue_timeout": Span(),
    "run_timeout": Span(),
    "quota": sa.Integer(),
}


@functools.cache
def insert(database: Database) -> Runnable:
    """Return the insert of new operations; it skips conflicts, and owners without free quota."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        if database.writes_in_ctes:
            m, granted = reserve(database, m)
        else:
            granted = has_quota(m)
        begin = latest(m["schedule_time"], clock())
        values: dict[str, Any] = {
            **{name: value for name, value in m.items() if name in _o},
            "status": sa.literal_column(f"'{TABLE[Transition.CREATE].target}'"),
            "revision": _ONE,
            "attempt": sa.literal_column("0"),
            "create_time": clock(),
            "expire_time": later(begin, m["ttl"]),
            "next_attempt_time": sa.case((m["schedule_time"] > clock(), m["schedule_time"])),
            "queue_expire_time": later(begin, m["queue_timeout"]),
            "backoff": shorter(m["initial_backoff"], m["max_backoff"]),
        }
        return (
            database.insert(operations)
            .from_select(list(values), sa.select(*values.values()).where(granted))
            .on_conflict_do_nothing()
            .returning(*COLUMNS)
        )

    event_writer = EventWriter(database, INSERT, build, transition=Transition.CREATE)
    if database.writes_in_ctes:
        return event_writer
    return QuotaReservation(database, event_writer, owner=list(INSERT).index("owner"))


def new_operation_values(operation_id: OperationId, new_operation: NewOperation) -> tuple[Any, ...]:
    """Return the values of the `INSERT` inputs."""
    return (
        operation_id,
        new_operation.owner,
        new_operation.request_id,
        None,
        new_operation.owner,
        new_operation.function,
        new_operation.version,
        new_operation.metadata,
        new_operation.original_request_id,
        new_operation.callback_url,
        " ".join(new_operation.callback_events) or None,
        new_operation.ttl,
        new_operation.retry_after,
        new_operation.max_attempts,
        new_operation.fingerprint,
        new_operation.trace_context,
        new_operation.priority,
        new_operation.schedule_time,
        new_operation.unique_key,
        new_operation.retry_policy.initial_backoff,
        new_operation.retry_policy.backoff_multiplier,
        new_operation.retry_policy.max_backoff,
        new_operation.queue_timeout,
        new_operation.run_timeout,
        new_operation.quota,
    )
