"""Claims: pending work is leased to workers, each operation to one, the owners in turn.

What it costs depends on how much is claimed, not on how much there is: the owners with work are
found by leaps through an index of pending operations, and of each only the oldest few are looked
at. On PostgreSQL picking, claiming and recording are one statement, and rows that others are
claiming at this moment are passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.transitions import CLAIMABLE, TABLE, Transition
from milepost.storage.dialects import clock, later
from milepost.storage.event_writer import ASKED, EventWriter
from milepost.storage.predicates import has_status, indexed_status
from milepost.storage.rows import COLUMNS, RowReader
from milepost.storage.tables import operations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement

    from milepost.domain.claim import ClaimRequest
    from milepost.domain.operation import Operation
    from milepost.storage.database import Database
    from milepost.storage.session import Session

MOST_OWNERS: Final = 16
"""Owners that one statement looks at."""
SPARE: Final = 8
"""Operations of one owner that are looked at beyond those wanted: others may be claiming them."""
ROUNDS: Final = 8
"""Statements that one claim runs for one function, at most."""
MOST_REMEMBERED: Final = 10_000
"""Functions of which it is known whose turn it is."""

_o = operations.c
_ONE: Final = sa.literal_column("1", sa.Integer)

_INPUTS: Final = {
    **ASKED,
    "function": sa.Text(),
    "after": sa.Text(),
    "owners": sa.Integer(),
    "depth": sa.Integer(),
    "most": sa.Integer(),
    "worker": sa.Text(),
    "lease": _o.lease.type,
}


def claiming(database: Database) -> EventWriter:
    """Return the statement that claims work of one function, of the owners after one of them."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        picked = _picked(m, lateral=database.has_lateral_joins)
        return (
            sa.update(operations)
            .where(
                _o.id.in_(sa.select(picked.c.id)),
                has_status(operations, CLAIMABLE),
            )
            .values(
                status=sa.literal_column(f"'{TABLE[Transition.CLAIM].target}'"),
                revision=_o.revision + _ONE,
                attempt=_o.attempt + _ONE,
                worker=m["worker"],
                start_time=clock(),
                lease=m["lease"],
                lease_expire_time=later(clock(), m["lease"]),
            )
            .returning(*COLUMNS)
        )

    return EventWriter(database, _INPUTS, build, transition=Transition.CLAIM)


def _picked(m: Mapping[str, ColumnElement[Any]], *, lateral: bool) -> sa.CTE:
    """Pick the oldest of each owner first, then the second oldest of each, and so on."""
    turn = _owners_in_turn(m)
    oldest = operations.alias("oldest")
    of_owner = (
        sa.select(oldest.c.id, oldest.c.create_time)
        .where(*_claimable(oldest, m["function"]), oldest.c.owner == turn.c.owner)
        .order_by(oldest.c.create_time, oldest.c.id)
        .limit(m["depth"])
    )
    found: sa.FromClause
    source: sa.FromClause
    if lateral:
        found = of_owner.lateral("found")
        source = turn.join(found, sa.true())
    else:
        found = operations.alias("found")
        ids = of_owner.with_only_columns(oldest.c.id).correlate(turn)
        source = turn.join(found, found.c.id.in_(ids))
    order = sa.func.row_number().over(
        partition_by=turn.c.number, order_by=(found.c.create_time, found.c.id)
    )
    candidates = (
        sa.select(found.c.id, order.label("place"), turn.c.number)
        .select_from(source)
        .where(turn.c.owner.is_not(None))
        .cte("candidates")
    )
    free = operations.alias("free")
    return (
        sa.select(free.c.id)
        .join(candidates, candidates.c.id == free.c.id)
        .where(has_status(free, CLAIMABLE))
        .order_by(candidates.c.place, candidates.c.number)
        .limit(m["most"])
        .with_for_update(skip_locked=True, of=free)
        .cte("picked")
    )


def _owners_in_turn(m: Mapping[str, ColumnElement[Any]]) -> sa.CTE:
    """Leap from owner to owner through the index, from the one that was served last."""
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
        table.c.function == function,
        table.c.expire_time >= clock(),
    )


def pending(functions: Collection[str]) -> sa.Select[Any]:
    """Return the read of which of `functions` have work: one leap through the index for each."""
    asked = sa.union_all(
        *(sa.select(sa.literal(function, sa.Text).label("function")) for function in functions)
    ).cte("asked")
    work = operations.alias("work")
    any_work = (
        sa.select(_ONE)
        .select_from(work)
        .where(*_claimable(work, asked.c.function))
        .order_by(work.c.owner, work.c.create_time, work.c.id)  # so that no planner tries a scan
        .limit(_ONE)
        .correlate(asked)
        .scalar_subquery()
    )
    return sa.select(asked.c.function).where(any_work.is_not(None))


class Claims:
    """The claims of one store, and whose turn it is. One thread uses it at a time."""

    def __init__(self, database: Database) -> None:
        """Build and compile the statement once."""
        self._rows = RowReader(database)
        self._statement = claiming(database)
        self._served: dict[str, str] = {}
        self._claims = 0

    def claim(
        self, session: Session, asked: Sequence[ClaimRequest]
    ) -> Sequence[list[Operation] | Exception]:
        """Answer each claim with what it is given; none is undone because another fails."""
        return [self._answer(session, claim) for claim in asked]

    def _answer(self, session: Session, claim: ClaimRequest) -> list[Operation] | Exception:
        found: list[Operation] = []
        try:
            for function in self._in_turn(claim.functions):
                wanted = claim.max_operations - len(found)
                for claimed in self._rounds(session, claim, function, wanted):
                    found += claimed
                if len(found) >= claim.max_operations:
                    break
        except Exception as error:  # noqa: BLE001 - what was claimed before stays claimed
            meaning = session.failed(error)
            if not found:
                return meaning
        return found

    def _in_turn(self, functions: Sequence[str]) -> Sequence[str]:
        """Begin with another function each time."""
        self._claims += 1
        first = self._claims % len(functions)
        return [*functions[first:], *functions[:first]]

    def _rounds(
        self, session: Session, claim: ClaimRequest, function: str, most: int
    ) -> Iterator[list[Operation]]:
        """Claim of owner after owner, at the end from the first on, until `most` are found.

        The order of the owners is that of the database. Should Python have another one, an owner
        may be served twice in one turn, but none is left out.
        """
        after = self._served.get(function, "")
        for _ in range(ROUNDS):
            owners, depth = min(most, MOST_OWNERS), most + SPARE
            asked = (claim.actor, None, None, function, after, owners, depth, most)
            rows = session.run(self._statement, [(*asked, claim.worker, claim.lease)])
            claimed = [self._rows.operation(row) for row in rows]
            yield claimed
            most -= len(claimed)
            if not claimed and not after:
                break
            after = max((operation.owner for operation in claimed), default="")
            if most <= 0:
                break
        if len(self._served) >= MOST_REMEMBERED:
            self._served.clear()
        self._served[function] = after
