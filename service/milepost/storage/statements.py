"""The statements that move operations, built from the table of moves.

Each is written once, over named inputs: `engine.Prepared` feeds it many rows at a time.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from milepost.domain.lifecycle import DELETABLE, PROGRESS_TOLERANCE, TABLE, Move
from milepost.domain.operation import (
    Operation,
    OperationError,
    OperationId,
    Payload,
    Scope,
    Status,
)
from milepost.storage.engine import Prepared
from milepost.storage.recording import ASKED, Recording
from milepost.storage.tables import clock, events, later, latest, operations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine

    from milepost.domain.lifecycle import Change
    from milepost.domain.operation import Draft
    from milepost.domain.ports import Position, Selection

Inputs = dict[str, "TypeEngine[Any]"]

SCOPE: Final[Inputs] = {"subject": sa.Text(), "everything": sa.Boolean(), "functions": sa.Text()}
CONDITIONS: Final[Inputs] = {
    "id": sa.Text(),
    **SCOPE,
    **ASKED,
    "expected_revision": sa.BigInteger(),
    "expected_attempt": sa.Integer(),
}
EFFECTS: Final[Mapping[Move, Inputs]] = {
    Move.START: {"progress": sa.Double(), "worker": sa.Text()},
    Move.PROGRESS: {"progress": sa.Double(), "message": sa.Text(), "worker": sa.Text()},
    Move.COMPLETE: {"result_type": sa.Text(), "result_value": sa.LargeBinary()},
    Move.FAIL: {"errors": sa.Text()},
    Move.CANCEL: {},
    Move.FORGET: {},
}
"""What each move brings along beside its conditions."""

_o = operations.c


_NO_FUNCTION: Final = r"\Z."
"""A pattern that matches nothing; NULL would do on PostgreSQL alone."""


def scope_values(scope: Scope) -> tuple[str, bool, str]:
    """Return the values of the `SCOPE` inputs: grants become one anchored regular expression.

    It means the same to Python and to PostgreSQL: no ``.``, ``^`` and ``$``, which do not.
    """
    if not scope.functions:
        return scope.subject, scope.everything, _NO_FUNCTION
    alternatives = (
        re.escape(grant[:-1]) if grant.endswith("*") else re.escape(grant) + r"\Z"
        for grant in scope.functions
    )
    return scope.subject, scope.everything, rf"\A({'|'.join(alternatives)})"


def condition_values(change: Change) -> tuple[Any, ...]:
    """Return the values of the `CONDITIONS` inputs."""
    return (
        change.id,
        *scope_values(change.scope),
        change.actor,
        change.request_id,
        change.reason,
        change.expected_revision,
        change.attempt,
    )


def effect_values(change: Change) -> tuple[Any, ...]:
    """Return the values of the `EFFECTS` inputs of the change's move."""
    match change.move:
        case Move.START:
            return change.progress, change.worker
        case Move.PROGRESS:
            return change.progress, change.message, change.worker
        case Move.COMPLETE:
            result = change.result
            return (result.type_url, result.value) if result else (None, None)
        case Move.FAIL:
            return (errors_to_json(change.errors),)
        case _:
            return ()


def in_scope(m: Mapping[str, ColumnElement[Any]]) -> ColumnElement[bool]:
    """Inside the asker's scope: what is outside does not exist for it."""
    return sa.or_(
        _o.owner == m["subject"], m["everything"], _o.function.regexp_match(m["functions"])
    )


def visible() -> ColumnElement[bool]:
    """Not expired. What is being worked on stays visible until it is failed with EXPIRED."""
    return sa.or_(_o.expire_time >= clock(), _o.status == Status.PROCESSING.value)


def _may_move(
    m: Mapping[str, ColumnElement[Any]], leaves: frozenset[Status]
) -> tuple[ColumnElement[bool], ...]:
    return (
        _o.id == m["id"],
        _o.status.in_([sa.literal_column(f"'{status}'") for status in sorted(leaves)]),
        in_scope(m),
        visible(),
        sa.or_(m["expected_revision"].is_(None), m["expected_revision"] == _o.revision),
        sa.or_(m["expected_attempt"].is_(None), m["expected_attempt"] == _o.attempt),
    )


def _sets(move: Move, m: Mapping[str, ColumnElement[Any]]) -> dict[str, Any]:
    """Return what `move` writes, beside the status and the revision."""
    started = {"start_time": clock(), "attempt": _o.attempt + _ONE, "worker": m.get("worker")}
    end = latest(_o.start_time, clock())
    ended = {
        "expire_time": latest(_o.expire_time, later(end, _o.ttl)),
        "lease": sa.null(),
        "lease_expire_time": sa.null(),
    }
    match move:
        case Move.START:
            return {
                **started,
                "progress": m["progress"],
                "progress_time": sa.case((m["progress"].is_not(None), clock())),
            }
        case Move.PROGRESS:
            return {**started, **_progress(m)}
        case Move.COMPLETE:
            return {
                **ended,
                "complete_time": end,
                "progress": sa.literal_column("1.0"),
                "result_type": m["result_type"],
                "result_value": m["result_value"],
            }
        case Move.FAIL:
            return {**ended, "complete_time": end, "errors": m["errors"]}
        case Move.CANCEL:
            return {**ended, "cancel_time": end}
        case _:
            raise ValueError(move)


def _progress(m: Mapping[str, ColumnElement[Any]]) -> dict[str, Any]:
    requested, current = m["progress"], _o.progress
    return {
        "progress": sa.case(
            (sa.or_(requested.is_(None), requested < current), current), else_=requested
        ),
        "progress_message": sa.func.coalesce(m["message"], _o.progress_message),
        "progress_time": clock(),
        "progress_request_id": m["request_id"],
        "lease_expire_time": later(clock(), _o.lease),
    }


_ONE: Final = sa.literal_column("1")


def changing(dialect: Dialect, move: Move) -> Recording:
    """Return the statement of a move that changes the status; it returns the operation."""
    rule = TABLE[move]

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        if rule.enters is None:
            return sa.delete(operations).where(*_may_move(m, DELETABLE)).returning(*COLUMNS)
        return (
            sa.update(operations)
            .where(*_may_move(m, rule.changing))
            .values(
                status=sa.literal_column(f"'{rule.enters}'"),
                revision=_o.revision + _ONE,
                **_sets(move, m),
            )
            .returning(*COLUMNS)
        )

    return Recording(dialect, CONDITIONS | EFFECTS[move], build, move=move)


def keeping_progress(dialect: Dialect) -> Prepared:
    """Return the report of progress of what is processing: no change of status, so no event."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> sa.Executable:
        return (
            sa.update(operations)
            .where(
                *_may_move(m, TABLE[Move.PROGRESS].keeping),
                sa.or_(
                    m["progress"].is_(None),
                    _o.progress.is_(None),
                    m["progress"] >= _o.progress - sa.literal_column(str(PROGRESS_TOLERANCE)),
                ),
                # A repeated call is answered, not done again.
                sa.or_(
                    m["request_id"].is_(None),
                    _o.progress_request_id.is_(None),
                    m["request_id"] != _o.progress_request_id,
                ),
            )
            .values(revision=_o.revision + _ONE, **_progress(m))
            .returning(*SUMMARY_COLUMNS)
        )

    return Prepared(dialect, CONDITIONS | EFFECTS[Move.PROGRESS], build)


INSERT: Final[Inputs] = {
    "id": sa.Text(),
    **ASKED,
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
}


def insert(dialect: Dialect) -> Recording:
    """Return the statement that stores drafts; a conflicting one is passed over."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        values: dict[str, Any] = {
            **{name: value for name, value in m.items() if name in _o},
            "status": sa.literal_column(f"'{TABLE[Move.CREATE].enters}'"),
            "revision": _ONE,
            "attempt": sa.literal_column("0"),
            "create_time": clock(),
            "expire_time": later(clock(), m["ttl"]),
        }
        if dialect.name == "sqlite":
            return (
                sqlite.insert(operations)
                .values(values)
                .on_conflict_do_nothing()
                .returning(*COLUMNS)
            )
        return (
            postgresql.insert(operations)
            .from_select(list(values), sa.select(*values.values()))
            .on_conflict_do_nothing()
            .returning(*COLUMNS)
        )

    return Recording(dialect, INSERT, build, move=Move.CREATE)


def draft_values(operation_id: OperationId, draft: Draft) -> tuple[Any, ...]:
    """Return the values of the `INSERT` inputs."""
    return (
        operation_id,
        draft.owner,
        draft.request_id,
        None,
        draft.owner,
        draft.function,
        draft.version,
        draft.metadata,
        draft.original_request_id,
        draft.callback_url,
        " ".join(draft.callback_events) or None,
        draft.ttl,
        draft.retry_after,
        draft.max_attempts,
        draft.fingerprint,
        draft.trace_context,
    )


def get(dialect: Dialect) -> Prepared:
    """Return the read by id; the number of the input row comes last."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> sa.Executable:
        return sa.select(*COLUMNS, m["number"]).where(_o.id == m["id"], in_scope(m), visible())

    return Prepared(dialect, {"id": sa.Text(), **SCOPE, "number": sa.Integer()}, build)


def why_not(change: Change) -> sa.Select[Any]:
    """Return the one read that says why a change did not happen, within its scope.

    The last column tells whether the same actor has made this very move before, with the same
    request_id.
    """
    repeated = sa.exists().where(
        events.c.operation_id == change.id,
        events.c.move == change.move.value,
        events.c.actor == change.actor,
        events.c.request_id == change.request_id,
    )
    if change.move is Move.PROGRESS:
        repeated = sa.or_(repeated, _o.progress_request_id == change.request_id)
    return sa.select(*COLUMNS, repeated).where(
        _o.id == change.id, in_scope(_literal_scope(change.scope)), visible()
    )


def _literal_scope(scope: Scope) -> Mapping[str, ColumnElement[Any]]:
    values = zip(SCOPE.items(), scope_values(scope), strict=True)
    return {name: sa.literal(value, type_) for (name, type_), value in values}


def last_event(
    operation_id: OperationId, subject: str, request_id: str | None = None
) -> sa.Select[Any]:
    """Return the read of what last happened to an operation that is gone, if it was theirs.

    Who deleted an operation of another is told so only when it repeats that call.
    """
    theirs = events.c.owner == subject
    if request_id is not None:
        repeated = sa.and_(
            events.c.type == TABLE[Move.FORGET].event,
            events.c.actor == subject,
            events.c.request_id == request_id,
        )
        theirs = sa.or_(theirs, repeated)
    return (
        sa.select(events.c.type, events.c.request_id)
        .where(events.c.operation_id == operation_id, theirs)
        .order_by(events.c.revision.desc())
        .limit(1)
    )


def of_request(draft: Draft) -> sa.Select[Any]:
    """Return the read of the operation that was created with the draft's request_id.

    The last two columns are the fingerprint of that create and whether it is still visible.
    """
    return sa.select(*COLUMNS, _o.fingerprint, visible()).where(
        _o.owner == draft.owner, _o.request_id == draft.request_id
    )


def forget_expired(dialect: Dialect) -> Recording:
    """Return the statement that removes operations that are past their time."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        return sa.delete(operations).where(_o.id == m["id"], sa.not_(visible())).returning(*COLUMNS)

    expired = TABLE[Move.EXPIRE].event
    return Recording(dialect, {"id": sa.Text(), **ASKED}, build, move=Move.FORGET, event=expired)


def select_page(
    scope: Scope, selection: Selection, after: Position | None, limit: int, *, full: bool
) -> sa.Select[Any]:
    """Return the read of one page, newest first, by keyset: its cost does not grow with depth."""
    query = (
        sa.select(*(COLUMNS if full else SUMMARY_COLUMNS))
        .where(visible(), *_selected(selection))
        .order_by(_o.create_time.desc(), _o.id.desc())
        .limit(limit)
    )
    if not scope.everything:
        query = query.where(_o.owner == scope.subject)
    if after is not None:
        query = query.where(
            sa.tuple_(_o.create_time, _o.id)
            < sa.tuple_(sa.literal(after.create_time, _o.create_time.type), sa.literal(after.id))
        )
    return query


def _selected(selection: Selection) -> Iterator[ColumnElement[bool]]:
    if selection.owner is not None:
        yield _o.owner == selection.owner
    if selection.function is not None:
        yield _o.function == selection.function
    if selection.statuses:
        yield _o.status.in_([status.value for status in selection.statuses])
    if selection.create_time_from is not None:
        yield _o.create_time >= selection.create_time_from
    if selection.create_time_to is not None:
        yield _o.create_time < selection.create_time_to


PING: Final = sa.select(sa.literal_column("1"))

# --- rows and operations ---

COLUMNS: Final = (
    _o.id,
    _o.function,
    _o.version,
    _o.owner,
    _o.status,
    _o.progress,
    _o.progress_message,
    _o.progress_time,
    _o.result_type,
    _o.result_value,
    _o.errors,
    _o.metadata,
    _o.original_request_id,
    _o.callback_url,
    _o.create_time,
    _o.start_time,
    _o.complete_time,
    _o.cancel_time,
    _o.expire_time,
    _o.ttl,
    _o.retry_after,
    _o.revision,
    _o.attempt,
    _o.max_attempts,
    _o.worker,
    _o.lease_expire_time,
    _o.trace_context,
    _o.callback_events,
)
_HEAVY: Final = frozenset({"result_type", "result_value", "errors", "metadata"})
SUMMARY_COLUMNS: Final = tuple(
    sa.null().label(column.name) if column.name in _HEAVY else column for column in COLUMNS
)
"""The same columns, with the payloads left out and not even read."""


class RowReader:
    """Makes operations of the rows that `COLUMNS` returns."""

    def __init__(self, dialect: Dialect) -> None:
        """Find the columns whose driver values need converting: none on PostgreSQL."""
        self._conversions = tuple(
            (number, convert)
            for number, column in enumerate(COLUMNS)
            if dialect.name == "sqlite"
            and (convert := _conversion(column.type, dialect)) is not None
        )

    def operation(self, row: Sequence[Any]) -> Operation:
        """Return the operation of one row as the driver gave it."""
        if self._conversions:
            row = list(row)
            for number, convert in self._conversions:
                row[number] = convert(row[number])
        return operation_from(row)


def _conversion(type_: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    if isinstance(type_, sa.Double):  # SQLite's RETURNING shows a whole number as an integer
        return lambda value: None if value is None else float(value)
    return type_.result_processor(dialect, None)


def operation_from(row: Sequence[Any]) -> Operation:
    """Return the operation of one row of `COLUMNS` in Python types."""
    result_type, errors = row[8], row[10]
    return Operation(
        id=row[0],
        function=row[1],
        version=row[2],
        owner=row[3],
        status=_STATUS[row[4]],
        progress=row[5],
        progress_message=row[6],
        progress_time=row[7],
        result=None if result_type is None else Payload(type_url=result_type, value=bytes(row[9])),
        errors=errors_from_json(errors) if errors else (),
        metadata=row[11],
        original_request_id=row[12],
        callback_url=row[13],
        create_time=row[14],
        start_time=row[15],
        complete_time=row[16],
        cancel_time=row[17],
        expire_time=row[18],
        ttl=row[19],
        retry_after=row[20],
        revision=row[21],
        attempt=row[22],
        max_attempts=row[23],
        worker=row[24],
        lease_expire_time=row[25],
        trace_context=row[26],
    )


_STATUS: Final = {status.value: status for status in Status}


def errors_to_json(errors: Sequence[OperationError]) -> str:
    """Return the stored form of errors, in order."""
    return json.dumps(
        [
            {
                "code": error.code,
                "message": error.message,
                "source": error.source,
                "details": json.loads(error.details) if error.details is not None else None,
            }
            for error in errors
        ]
    )


def errors_from_json(text: str) -> tuple[OperationError, ...]:
    """Return the errors of their stored form."""
    return tuple(
        OperationError(
            code=item["code"],
            message=item["message"],
            source=item["source"],
            details=json.dumps(item["details"]) if item["details"] is not None else None,
        )
        for item in json.loads(text)
    )
