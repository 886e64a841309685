"""Claims: pending operations are leased to workers, each to one, and owners take turns.

The cost depends on the number of claimed operations, not of pending ones: the statement skips from
owner to owner through an index of pending operations, and reads only the oldest few of each. On
PostgreSQL selection, claim and events are one statement, which skips rows that concurrent claims
have locked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.transitions import CLAIMABLE, TABLE, Transition
from milepost.storage.answer_size import answer_bytes, bytes_of
from milepost.storage.dialects import Span, clock, later
from milepost.storage.effects import started
from milepost.storage.event_writer import REQUEST_INPUTS, EventWriter
from milepost.storage.predicates import has_status, indexed_status
from milepost.storage.prepared import Prepared
from milepost.storage.rows import COLUMNS, RowReader
from milepost.storage.tables import operations

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import ColumnElement

    from milepost.domain.claim import ClaimRequest
    from milepost.domain.operation import Operation
    from milepost.storage.database import Database
    from milepost.storage.session import Session

MAX_OWNERS: Final = 16
"""Owners that one statement visits."""
LOOKAHEAD: Final = 8
"""Operations of one owner that are read beyond those wanted, as concurrent claims may take some."""
MAX_STATEMENTS: Final = 8
"""Statements that one claim runs for one function."""
MAX_LAST_OWNERS: Final = 10_000
"""Functions whose last served owner is remembered."""

_o = operations.c
_ONE: Final = sa.literal_column("1", sa.Integer)

_INPUTS: Final = {
    **REQUEST_INPUTS,
    "function": sa.Text(),
    "after": sa.Text(),
    "owners": sa.Integer(),
    "depth": sa.Integer(),
    "max_operations": sa.Integer(),
    "min_operations": sa.Integer(),
    "max_bytes": sa.Integer(),
    "worker": sa.Text(),
    "lease": _o.lease.type,
}
_ORDER: Final = ("priority", "create_time", "id")
"""The order of the pending operations of one owner: the highest priority first, then the oldest."""


def claim_statement(database: Database) -> EventWriter:
    """Return the statement that claims work of one function, from the owners after a given one."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        picked = _fitting(m, _picked(m, lateral=database.has_lateral_joins))
        return (
            sa.update(operations)
            .where(
                _o.id.in_(sa.select(picked.c.id)),
                has_status(operations, CLAIMABLE),
            )
            .values(
                status=sa.literal_column(f"'{TABLE[Transition.CLAIM].target}'"),
                revision=_o.revision + _ONE,
                **started(m),
                lease=m["lease"],
                lease_expire_time=later(clock(), m["lease"]),
            )
            .returning(*COLUMNS)
        )

    return EventWriter(database, _INPUTS, build, transition=Transition.CLAIM)


def _fitting(m: Mapping[str, ColumnElement[Any]], picked: sa.CTE) -> sa.CTE:
    """Select the picked operations that fit into the answer, in their order."""
    order = (picked.c.place, picked.c.number)
    measured = sa.select(
        picked.c.id,
        sa.func.row_number().over(order_by=order).label("position"),
        sa.func.sum(picked.c.answer_bytes).over(order_by=order, rows=(None, 0)).label("total"),
    ).cte("measured")
    fits = sa.or_(
        measured.c.position <= m["min_operations"],
        measured.c.total <= m["max_bytes"],
    )
    return sa.select(measured.c.id).where(fits).cte("fitting")


def _picked(m: Mapping[str, ColumnElement[Any]], *, lateral: bool) -> sa.CTE:
    """Select the first operation of each owner, then the second of each, and so on."""
    turn = _owners_in_turn(m)
    work = operations.alias("work")
    of_owner = (
        sa.select(*(work.c[name] for name in _ORDER))
        .where(*_claimable(work, m["function"]), work.c.owner == turn.c.owner)
        .order_by(*_in_order(work))
        .limit(m["depth"])
    )
    found: sa.FromClause
    source: sa.FromClause
    if lateral:
        found = of_owner.lateral("found")
        source = turn.join(found, sa.true())
    else:
        found = operations.alias("found")
        ids = of_owner.with_only_columns(work.c.id).correlate(turn)
        source = turn.join(found, found.c.id.in_(ids))
    order = sa.func.row_number().over(partition_by=turn.c.number, order_by=_in_order(found))
    candidates = (
        sa.select(found.c.id, order.label("place"), turn.c.number)
        .select_from(source)
        .where(turn.c.owner.is_not(None))
        .cte("candidates")
    )
    free = operations.alias("free")
    return (
        sa.select(
            free.c.id,
            candidates.c.place,
            candidates.c.number,
            answer_bytes(free).label("answer_bytes"),
        )
        .join(candidates, candidates.c.id == free.c.id)
        # The lock may meet a newer version of the row than the candidates: one that was claimed,
        # has failed, and waits for its next attempt.
        .where(has_status(free, CLAIMABLE), free.c.next_attempt_time.is_(None))
        .order_by(candidates.c.place, candidates.c.number)
        .limit(m["max_operations"])
        .with_for_update(skip_locked=True, of=free)
        .cte("picked")
    )


def _in_order(found: sa.FromClause) -> tuple[ColumnElement[Any], ...]:
    priority, create_time, id_ = (found.c[name] for name in _ORDER)
    return priority.desc(), create_time, id_


def _owners_in_turn(m: Mapping[str, ColumnElement[Any]]) -> sa.CTE:
    """Skip from owner to owner through the index, starting after the given one."""
    first = sa.select(
        _next_owner(m["function"], m["after"]).label("owner"), _ONE.label("number")
    ).cte("turn", recursive=True)
    following = sa.select(
        _next_owner(m["function"], first.c.owner, first), first.c.number + _ONE
    ).where(first.c.owner.is_not(None), first.c.number < m["owners"])
    return first.union_all(following)


def _next_owner(
    function: ColumnElement[str], after: ColumnElement[str], *outer: sa.FromClause
) -> sa.ScalarSelect[str]:
    pending = operations.alias("pending")
    return (
        sa.select(pending.c.owner)
        .where(*_claimable(pending, function), pending.c.owner > after)
        .order_by(pending.c.owner)
        .limit(_ONE)
        .correlate(*outer)
        .scalar_subquery()
    )


def _claimable(
    table: sa.FromClause, function: ColumnElement[str]
) -> tuple[ColumnElement[bool], ...]:
    return (
        indexed_status(table, CLAIMABLE),
        table.c.next_attempt_time.is_(None),
        table.c.function == function,
        table.c.expire_time >= clock(),
    )


def pending(functions: Collection[str]) -> sa.Select[Any]:
    """Return the query for those of `functions` that have work: one index lookup for each."""
    requested = sa.union_all(
        *(sa.select(sa.literal(function, sa.Text).label("function")) for function in functions)
    ).cte("requested")
    work = operations.alias("work")
    any_work = (
        sa.select(_ONE)
        .select_from(work)
        .where(*_claimable(work, requested.c.function))
        .order_by(work.c.owner, *_in_order(work))  # keeps the planner from a scan
        .limit(_ONE)
        .correlate(requested)
        .scalar_subquery()
    )
    return sa.select(requested.c.function).where(any_work.is_not(None))


def wake_statement(database: Database) -> Prepared:
    """Return the statement that makes waiting operations claimable whose time has come."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        due = (
            sa.select(_o.id)
            .where(*_waiting(), _o.next_attempt_time <= clock())
            .order_by(_o.next_attempt_time)
            .limit(m["max_operations"])
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        return (
            sa.update(operations)
            .where(_o.id.in_(sa.select(due.c.id)), has_status(operations, CLAIMABLE))
            .values(next_attempt_time=sa.null())
            .returning(_o.function)
        )

    return Prepared(database, {"max_operations": sa.Integer()}, build)


def next_due() -> sa.Select[Any]:
    """Return the query for the time until the next waiting operation is due; no row for none."""
    left = sa.type_coerce(_o.next_attempt_time.op("-")(clock()), Span())
    return sa.select(left).where(*_waiting()).order_by(_o.next_attempt_time).limit(1)


def _waiting() -> tuple[ColumnElement[bool], ...]:
    return indexed_status(operations, CLAIMABLE), _o.next_attempt_time.is_not(None)


class Claims:
    """The claims of one store, with the last served owners. One thread uses it at a time."""

    def __init__(self, database: Database) -> None:
        """Build and compile the statement once."""
        self._rows = RowReader(database)
        self._statement = claim_statement(database)
        self._last_owners: dict[str, str] = {}
        self._claims = 0

    def claim(
        self, session: Session, requests: Sequence[ClaimRequest]
    ) -> Sequence[list[Operation] | Exception]:
        """Return the claimed operations of each request; a failure does not undo other claims."""
        return [self._claim(session, request) for request in requests]

    def _claim(self, session: Session, request: ClaimRequest) -> list[Operation] | Exception:
        answer = _Answer(request)
        try:
            for function in self._in_turn(request.functions):
                self._claim_of_function(session, request, function, answer)
                if answer.is_full:
                    break
        except Exception as error:  # noqa: BLE001 - what was claimed before stays claimed
            failure = session.failed(error)
            if not answer.operations:
                return failure
        return answer.operations

    def _in_turn(self, functions: Sequence[str]) -> Sequence[str]:
        """Return the functions, starting with another one at each call."""
        self._claims += 1
        first = self._claims % len(functions)
        return [*functions[first:], *functions[:first]]

    def _claim_of_function(
        self, session: Session, request: ClaimRequest, function: str, answer: _Answer
    ) -> None:
        """Claim what fits into `answer` from owner after owner, and after the last from the first.

        The order of the owners is that of the database. If Python orders some differently, an owner
        may be served twice in one turn, but no owner is skipped.
        """
        after = self._last_owners.get(function, "")
        for _ in range(MAX_STATEMENTS):
            missing = answer.missing
            inputs = (
                *(request.actor, None, None, function, after),
                *(min(missing, MAX_OWNERS), missing + LOOKAHEAD, missing),
                *(0 if answer.operations else 1, answer.bytes_left),
                *(request.worker, request.lease),
            )
            rows = session.run(self._statement, [inputs])
            claimed = [self._rows.operation(row) for row in rows]
            answer.add(claimed)
            if not claimed and not after:
                break
            after = max((operation.owner for operation in claimed), default="")
            if answer.is_full:
                break
        if len(self._last_owners) >= MAX_LAST_OWNERS:
            self._last_owners.clear()
        self._last_owners[function] = after


class _Answer:
    """The operations of one claim, and the room that is left for more."""

    def __init__(self, request: ClaimRequest) -> None:
        self.operations: list[Operation] = []
        self.missing = request.max_operations
        self.bytes_left = request.max_bytes
        self._min_bytes_left = request.max_bytes // 2

    @property
    def is_full(self) -> bool:
        """True if no operation is missing, or the next one may not fit."""
        return self.missing <= 0 or self.bytes_left < self._min_bytes_left

    def add(self, claimed: Sequence[Operation]) -> None:
        """Add the claimed operations."""
        self.operations += claimed
        self.missing -= len(claimed)
        if self.missing > 0:
            self.bytes_left -= sum(map(bytes_of, claimed))
