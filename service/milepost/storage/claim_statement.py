"""The statement that claims pending operations of several functions for one claim or for several.

Its cost depends on the number of claimed operations, not of pending ones: it skips from owner to
owner through an index of pending operations, and reads only the first few of each. On PostgreSQL
selection, claims and events are one statement, which skips rows that concurrent claims have locked.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.transitions import CLAIMABLE, TABLE, Transition
from milepost.storage.answer_size import answer_bytes
from milepost.storage.dialects import clock, json_pairs, later
from milepost.storage.effects import started
from milepost.storage.event_writer import REQUEST_INPUTS, EventWriter
from milepost.storage.predicates import has_status, indexed_status
from milepost.storage.rows import COLUMNS
from milepost.storage.tables import operations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement

    from milepost.storage.database import Database

    Inputs = Mapping[str, ColumnElement[Any]]

LOOKAHEAD: Final = 8
"""Operations of one owner that are read beyond those wanted, as concurrent claims may take some."""

_o = operations.c
_ONE: Final = sa.literal_column("1", sa.Integer)
_FOLLOWING: Final = operations.alias("following")
_FIRST: Final = operations.alias("first")
_ORDER: Final = ("priority", "create_time", "id")
"""The order of the pending operations of one owner: the highest priority first, then the oldest."""

_INPUTS: Final = {
    **REQUEST_INPUTS,
    "number": sa.Integer(),
    "functions": sa.Text(),
    "max_pairs": sa.Integer(),
    "first": sa.Integer(),
    "last": sa.Integer(),
    "min_operations": sa.Integer(),
    "max_bytes": sa.Integer(),
    "worker": sa.Text(),
    "lease": _o.lease.type,
}
"""One row for each claim, which takes the positions from `first` to `last` of what is picked.

`functions` and `max_pairs` are those of the whole statement. `functions` is a JSON array with the
name and the last served owner of each; only the first row has it.
"""


@functools.cache
def claim_statement(database: Database) -> EventWriter:
    """Return the statement of some claims of the same functions.

    It returns the claimed operations, each with the number of its claim.
    """

    def build(m: Inputs) -> Any:
        fitting = _fitting(m, _picked(m, lateral=database.has_lateral_joins))
        return (
            sa.update(operations)
            .where(
                _o.id == fitting.c.id,
                fitting.c.claim == m["number"],
                has_status(operations, CLAIMABLE),
            )
            .values(
                status=sa.literal_column(f"'{TABLE[Transition.CLAIM].target}'"),
                revision=_o.revision + _ONE,
                **started(m),
                lease=m["lease"],
                lease_expire_time=later(clock(), m["lease"]),
            )
            .returning(*COLUMNS, m["number"].label("number"))
        )

    return EventWriter(database, _INPUTS, build, transition=Transition.CLAIM)


def claimable(
    table: sa.FromClause, function: ColumnElement[str]
) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of the pending operations of a function that a worker may claim."""
    return (
        indexed_status(table, CLAIMABLE),
        table.c.next_attempt_time.is_(None),
        table.c.function == function,
        table.c.expire_time >= clock(),
    )


def in_order(table: sa.FromClause, *, backwards: bool = False) -> tuple[ColumnElement[Any], ...]:
    """Return the order in which the pending operations of one owner are claimed."""
    priority, create_time, id_ = (table.c[name] for name in _ORDER)
    if backwards:
        return priority, create_time.desc(), id_.desc()
    return priority.desc(), create_time, id_


def _fitting(m: Inputs, picked: sa.CTE) -> sa.CTE:
    """Select the operations of each claim that fit into its answer, in their order."""
    measured = sa.select(
        picked.c.id, picked.c.answer_bytes, sa.func.row_number().over(order_by=_turn(picked))
    ).cte("measured")
    id_, size, position = measured.c
    total = sa.func.sum(size).over(partition_by=m["number"], order_by=position, rows=(None, 0))
    divided = (
        sa.select(
            id_.label("id"),
            m["number"].label("claim"),
            sa.or_(position < m["first"] + m["min_operations"], total <= m["max_bytes"]).label(
                "fits"
            ),
        )
        .where(position >= m["first"], position <= m["last"])
        .cte("divided")
    )
    return sa.select(divided.c.id, divided.c.claim).where(divided.c.fits).cte("fitting")


def _picked(m: Inputs, *, lateral: bool) -> sa.CTE:
    """Select the first operation of each owner of each function, then the second, and so on."""
    wanted = _of_all(m["last"])
    candidates = _candidates(_visited(m), wanted, lateral=lateral)
    free = operations.alias("free")
    return (
        sa.select(
            free.c.id,
            candidates.c.place,
            candidates.c.level,
            candidates.c.number,
            answer_bytes(free).label("answer_bytes"),
        )
        .join(candidates, candidates.c.id == free.c.id)
        # The lock may meet a newer version of the row than the candidates: one that was claimed,
        # has failed, and waits for its next attempt.
        .where(has_status(free, CLAIMABLE), free.c.next_attempt_time.is_(None))
        .order_by(*_turn(candidates))
        .limit(wanted)
        .with_for_update(skip_locked=True, of=free)
        .cte("picked")
    )


def _turn(table: sa.FromClause) -> tuple[ColumnElement[Any], ...]:
    """Return the order in which operations of several owners and functions are claimed."""
    return table.c.place, table.c.level, table.c.number


def _candidates(visited: sa.CTE, wanted: ColumnElement[int], *, lateral: bool) -> sa.CTE:
    """Select the first operations of each visited owner, with their place among these."""
    count = sa.select(sa.func.count()).select_from(visited.alias("counted")).scalar_subquery()
    lookahead = sa.literal_column(str(LOOKAHEAD + 1), sa.Integer)
    work = operations.alias("work")
    of_owner = (
        sa.select(*(work.c[name] for name in _ORDER))
        .where(*claimable(work, visited.c.function), work.c.owner == visited.c.owner)
        .order_by(*in_order(work))
        .limit(wanted // count + lookahead)
    )
    found: sa.FromClause
    source: sa.FromClause
    if lateral:
        found = of_owner.lateral("found")
        source = visited.join(found, sa.true())
    else:
        found = operations.alias("found")
        ids = of_owner.with_only_columns(work.c.id).correlate(visited)
        source = visited.join(found, found.c.id.in_(ids))
    pair = (visited.c.level, visited.c.number)
    place = sa.func.row_number().over(partition_by=pair, order_by=in_order(found))
    return sa.select(found.c.id, place.label("place"), *pair).select_from(source).cte("candidates")


def _visited(m: Inputs) -> sa.CTE:
    """Select up to `max_pairs` functions with an owner: the next of each function, and so on."""
    pairs = _owners_in_turn(m)
    return (
        sa.select(pairs.c.function, pairs.c.owner, pairs.c.level, pairs.c.number)
        .where(*_is_new(pairs))
        .limit(_of_all(m["max_pairs"]))
        .cte("visited")
    )


def _owners_in_turn(m: Inputs) -> sa.CTE:
    """Skip from owner to owner of each function through the index, once around.

    Each function starts after its last served owner and ends where it has started. Rows come level
    by level, so that a limit of the rows ends the search.
    """
    requested = (
        json_pairs(_of_all(m["functions"]))
        .table_valued(
            sa.column("number", sa.Integer), sa.column("a", sa.Text), sa.column("b", sa.Text)
        )
        .alias("requested")
    )
    turn = sa.select(
        requested.c.number,
        requested.c.a.label("function"),
        sa.cast(sa.null(), sa.Text).label("start"),
        _next_owner(requested.c.a, requested.c.b, requested).label("owner"),
        _ONE.label("level"),
    ).cte("turn", recursive=True)
    # Otherwise SQLite ends the search only after all owners.
    turn = turn.prefix_with("NOT MATERIALIZED", dialect="sqlite")
    following = sa.select(
        turn.c.number,
        turn.c.function,
        sa.func.coalesce(turn.c.start, turn.c.owner),
        _next_owner(turn.c.function, turn.c.owner, turn),
        turn.c.level + _ONE,
    ).where(*_is_new(turn))
    return turn.union_all(following)


def _is_new(turn: sa.CTE) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that there is an owner, and not the one that the function began with."""
    return (
        turn.c.owner.is_not(None),
        sa.or_(turn.c.start.is_(None), turn.c.owner != turn.c.start),
    )


def _next_owner(
    function: ColumnElement[str], after: ColumnElement[str], outer: sa.FromClause
) -> ColumnElement[str]:
    """Return the next owner with work of the function; after the last comes the first.

    Owners come in descending order: backwards, the index begins with the operation of an owner that
    is claimed last. Forwards, it begins with the entries of all that have been claimed.
    """
    following, first = (
        sa.select(pending.c.owner)
        .where(*claimable(pending, function), *bounds)
        # All of the index, as otherwise the planner may choose another one that is ordered by owner
        # and read what has been claimed before.
        .order_by(pending.c.owner.desc(), *in_order(pending, backwards=True))
        .limit(_ONE)
        .correlate(outer)
        .scalar_subquery()
        for pending, bounds in (
            (_FOLLOWING, (_FOLLOWING.c.owner < after,)),
            (_FIRST, ()),
        )
    )
    return sa.func.coalesce(following, first)


def _of_all(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the largest value of all claims: NULL if none has one."""
    return sa.select(sa.func.max(value)).scalar_subquery()
