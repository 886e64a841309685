"""Factories of requests, access filters, and operations of any status and age."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from milepost.domain.operation import (
    AccessFilter,
    NewOperation,
    Operation,
    OperationError,
    OperationId,
    Payload,
    RetryPolicy,
    Status,
    new_operation_id,
)
from milepost.domain.ports import OperationStore
from milepost.domain.selection import Position, Selection
from milepost.domain.transitions import Transition, TransitionRequest
from milepost.storage.dialects import Instant, Span
from milepost.storage.tables import operations, serving_periods

OWNER: Final = "alice"
STRANGER: Final = "mallory"
FUNCTION: Final = "video.transcode"
LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)
FAR_AWAY: Final = datetime(2100, 1, 1, tzinfo=UTC)
PLENTY: Final = 1_000_000
"""A quota, or a number of bytes, that no test reaches by accident."""
RETRY_POLICY: Final = RetryPolicy(
    initial_backoff=timedelta(seconds=1), backoff_multiplier=2.0, max_backoff=timedelta(minutes=5)
)
ROWS_AT_ONCE: Final = 1_000
"""About 1 MB, much less than what the sockets of a session hold."""
TICK_S: Final = 0.002
"""More than a step of the clock of either database."""
EVENT_TYPES: Final = (
    "started",
    "completed",
    "failed",
    "retrying",
    "cancel_requested",
    "cancelled",
    "released",
    "expired",
)

_PATHS: Final[dict[Status, Sequence[Transition]]] = {
    Status.PENDING: (),
    Status.PROCESSING: (Transition.START,),
    Status.COMPLETED: (Transition.START, Transition.COMPLETE),
    Status.FAILED: (Transition.START, Transition.FAIL),
    Status.CANCELLED: (Transition.START, Transition.CANCEL),
}


def new_operation(**overrides: Any) -> NewOperation:
    """Return a new operation of `OWNER`, with a webhook for every event and `overrides`."""
    plain = NewOperation(
        owner=OWNER,
        function=FUNCTION,
        version=None,
        metadata=None,
        original_request_id=None,
        callback_url="https://example.com/hook?secret=1",
        callback_events=tuple(f"operation.{name}" for name in EVENT_TYPES),
        ttl=timedelta(hours=24),
        retry_after=timedelta(seconds=5),
        max_attempts=3,
        request_id=None,
        fingerprint="as asked",
        trace_context=None,
        quota=PLENTY,
        schedule_time=None,
        priority=5,
        unique_key=None,
        refuses_to_join=False,
        retry_policy=RETRY_POLICY,
        queue_timeout=None,
        run_timeout=None,
    )
    return dataclasses.replace(plain, **overrides)


def access_filter(
    subject: str = OWNER, *, everything: bool = False, functions: Sequence[str] = ()
) -> AccessFilter:
    """Return the access filter of `subject`: its own operations and the given functions."""
    return AccessFilter(subject=subject, everything=everything, functions=tuple(functions))


def error(code: str = "BROKEN", message: str = "it broke", **overrides: Any) -> OperationError:
    """An error as a worker reports it."""
    return dataclasses.replace(OperationError(code=code, message=message), **overrides)


def payload(value: bytes = b"\x0a\x02ok") -> Payload:
    """A packed message."""
    return Payload(type_url="type.googleapis.com/google.protobuf.Value", value=value)


def change(transition: Transition, id: OperationId, **overrides: Any) -> TransitionRequest:  # noqa: A002 - the field
    """Return the request of `OWNER` for a transition; `overrides` replace its fields.

    The actor is the subject of the access filter.
    """
    asker = overrides.get("access_filter", access_filter())
    plain = TransitionRequest(
        transition=transition,
        id=id,
        access_filter=asker,
        actor=asker.subject,
        result=payload() if transition is Transition.COMPLETE else None,
        errors=(error(),) if transition in {Transition.FAIL, Transition.RETRY} else (),
        grace=timedelta(minutes=1) if transition is Transition.REQUEST_CANCEL else None,
    )
    return dataclasses.replace(plain, **overrides)


async def create(store: OperationStore, **overrides: Any) -> Operation:
    """Create a pending operation in `store`."""
    outcome = await store.insert(new_operation_id(), new_operation(**overrides))
    assert outcome is not None
    return outcome.operation


async def listed(
    store: OperationStore,
    asker: AccessFilter,
    selection: Selection,
    after: Position | None,
    limit: int,
    *,
    full: bool,
) -> list[Operation]:
    """Return the operations of a page that is not bounded in bytes."""
    page = await store.list(asker, selection, after, limit, full=full, max_bytes=PLENTY)
    return page.items


async def reach(store: OperationStore, status: Status, **overrides: Any) -> Operation:
    """Create an operation in `store` and lead it to `status` by legal transitions."""
    operation = await create(store, **overrides)
    asker = access_filter(operation.owner)
    for transition in _PATHS[status]:
        operation = (
            await store.apply(change(transition, operation.id, access_filter=asker))
        ).operation
    assert operation.status is status
    return operation


def age(engine: Engine, operation_id: OperationId, by: timedelta) -> None:
    """Move every time of the operation, and the periods of service, `by` into the past."""
    span = sa.literal(by, Span())
    times = [column for column in operations.c if isinstance(column.type, Instant)]
    with engine.begin() as connection:
        aged = connection.execute(
            sa.update(operations)
            .where(operations.c.id == operation_id)
            .values({time: sa.type_coerce(time.op("-")(span), Instant()) for time in times})
        )
        assert aged.rowcount == 1
        # The end is left to the service: it tells whether it still runs.
        begun = serving_periods.c.start_time
        connection.execute(
            sa.update(serving_periods).values(
                start_time=sa.type_coerce(begun.op("-")(span), Instant())
            )
        )


def serve_always(engine: Engine) -> None:
    """Store that renewals of leases could and can be taken at any time, and nothing else."""
    with engine.begin() as connection:
        connection.execute(sa.delete(serving_periods))
        connection.execute(
            sa.insert(serving_periods).values(start_time=LONG_AGO, end_time=FAR_AWAY)
        )


def row(status: Status = Status.PENDING, /, **overrides: Any) -> dict[str, Any]:
    """Return a legal row of `tables.operations` in `status`, to be inserted without the store."""
    begun = status in {Status.PROCESSING, Status.COMPLETED}
    ended = status in {Status.COMPLETED, Status.FAILED}
    plain = dict.fromkeys(column.name for column in operations.c) | {
        "id": new_operation_id(),
        "function": FUNCTION,
        "owner": OWNER,
        "status": status.value,
        "progress": 1.0 if status is Status.COMPLETED else None,
        "errors": "[]" if status is Status.FAILED else None,
        "create_time": LONG_AGO,
        "start_time": LONG_AGO + timedelta(seconds=1) if begun else None,
        "complete_time": LONG_AGO + timedelta(seconds=2) if ended else None,
        "cancel_time": LONG_AGO + timedelta(seconds=2) if status is Status.CANCELLED else None,
        "expire_time": FAR_AWAY,
        "ttl": timedelta(hours=24),
        "retry_after": timedelta(seconds=5),
        "revision": 1,
        "attempt": 0,
        "max_attempts": 3,
        "failed_attempts": 0,
        "fingerprint": "as asked",
        "priority": 5,
        "initial_backoff": RETRY_POLICY.initial_backoff,
        "backoff": RETRY_POLICY.initial_backoff,
        "backoff_multiplier": RETRY_POLICY.backoff_multiplier,
        "max_backoff": RETRY_POLICY.max_backoff,
    }
    return plain | overrides


def insert(connection: Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert many rows, and await the answer to some before the sockets of the session are full.

    A session whose PostgreSQL takes no data for 10 s counts as broken. That has happened to 20,000
    rows at once, on a busy machine.
    """
    for start in range(0, len(rows), ROWS_AT_ONCE):
        connection.execute(sa.insert(table), rows[start : start + ROWS_AT_ONCE])
