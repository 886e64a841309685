"""Settlements: records of attempts, and the next state of their deliveries.

A settlement names the lease of the delivery. If the lease is lost, only the attempt is recorded.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.storage.dialects import Instant, Span, clock, later
from milepost.storage.prepared import Prepared
from milepost.storage.tables import deliveries, delivery_attempts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.types import TypeEngine

    from milepost.domain.delivery import Settlement
    from milepost.storage.database import Database
    from milepost.storage.session import Session

    Columns = Mapping[str, ColumnElement[Any]]

_d = deliveries.c
_a = delivery_attempts.c
_PENDING: Final[ColumnElement[str]] = sa.literal_column("'PENDING'")
_NULL: Final = sa.null()
_INPUTS: Final[Mapping[str, TypeEngine[Any]]] = {
    "id": sa.Text(),
    "held": sa.Text(),
    "new_status": sa.Text(),
    "new_tries": sa.Integer(),
    "delay": Span(),
    "number": sa.Integer(),
    "start_time": Instant(),
    "duration": Span(),
    "status_code": sa.Integer(),
    "error": sa.Text(),
}


@functools.cache
def settle_statement(database: Database) -> SettleStatement:
    """Return the statement that settles deliveries."""
    return SettleStatement(database)


class SettleStatement:
    """The statement that records attempts and updates their deliveries."""

    def __init__(self, database: Database) -> None:
        """Compile it."""
        self._database = database
        self._at_once = database.writes_in_ctes
        if self._at_once:
            self._whole = Prepared(database, _INPUTS, self._one_statement)
            return
        self._attempt_part = Prepared(database, _INPUTS, self._record)
        self._whole = Prepared(database, _INPUTS, self._update)

    def run(self, session: Session, settlements: Sequence[Settlement]) -> list[bool]:
        """Settle all, or none; return for each whether its lease was still held."""
        # Sorted, so that statements that lock several rows lock them in one order.
        rows = [_values(settlement) for settlement in sorted(settlements, key=lambda s: s.id)]
        if self._at_once:
            updated = self._whole.run(session.cursor, rows)
        else:
            with session.atomic() as cursor:
                self._attempt_part.run(cursor, rows)
                updated = self._whole.run(cursor, rows)
        held = {delivery_id for (delivery_id,) in updated}
        return [settlement.id in held for settlement in settlements]

    def _one_statement(self, m: Columns) -> sa.Select[Any]:
        updated = self._update(m).cte("updated")
        return sa.select(updated.c.id).add_cte(self._record(m).cte("recorded"))

    def _update(self, m: Columns) -> Any:
        pending = m["new_status"] == _PENDING
        return (
            sa.update(deliveries)
            .where(_d.id == m["id"], _d.lease == m["held"], _d.status == _PENDING)
            .values(
                status=m["new_status"],
                tries=m["new_tries"],
                lease=_NULL,
                next_attempt_time=later(clock(), m["delay"]),
                settle_time=sa.case((pending, _NULL), else_=clock()),
            )
            .returning(_d.id)
        )

    def _record(self, m: Columns) -> Any:
        values = {
            "delivery_id": m["id"],
            **{name: m[name] for name in _INPUTS if name in _a},
        }
        rows = sa.select(*values.values()).where(sa.exists().where(_d.id == m["id"]))
        insert = self._database.insert(delivery_attempts).from_select(list(values), rows)
        return insert.on_conflict_do_nothing()


def _values(settlement: Settlement) -> tuple[Any, ...]:
    attempt = settlement.attempt
    return (
        settlement.id,
        settlement.lease,
        settlement.status.value,
        settlement.tries,
        settlement.delay,
        attempt.number,
        attempt.start_time,
        attempt.duration,
        attempt.status_code,
        attempt.error,
    )
