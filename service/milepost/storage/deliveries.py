"""The outbox: claiming what is due, settling what was tried, and showing it to its owner.

A claim is one short statement. It moves `next_attempt_time` to where its lease ends, so that the
one partial index serves for what is due, what is leased, and what was left behind by a
dispatcher that died. Whoever settles names its lease; if that was lost, only the attempt is
recorded.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from milepost.domain.delivery import (
    SETTLED,
    Attempt,
    ClaimedDelivery,
    Delivery,
    DeliveryStatus,
    Settlement,
)
from milepost.domain.errors import DeliveryNotFound, IllegalTransition
from milepost.storage import secrets
from milepost.storage.dialects import Instant, Span, clock, later
from milepost.storage.engine import Prepared
from milepost.storage.snapshots import SUBJECT, subject_from, subject_from_snapshot
from milepost.storage.tables import deliveries, delivery_attempts, operations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import timedelta

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine

    from milepost.domain.delivery import DeliverySelection, Subject
    from milepost.domain.selection import Position
    from milepost.storage.engine import Session

    Columns = Mapping[str, ColumnElement[Any]]

LOOKED_AT: Final = 1_000
"""How many due deliveries one claim looks at to be fair between hosts: bounds its cost."""
FORGOTTEN_AT_ONCE: Final = 1_000
_d = deliveries.c
_a = delivery_attempts.c
_PENDING: Final[ColumnElement[str]] = sa.literal_column("'PENDING'")  # as the partial index has it
_NOTHING: Final = sa.null()


# --- claim ---


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryClaim:
    """What a dispatcher asks for."""

    limit: int
    per_host: int
    busy: Collection[str]
    lease: timedelta


def claim(session: Session, asked: DeliveryClaim) -> list[ClaimedDelivery]:
    """Take what is due, and read what its bodies and signatures need.

    One statement takes it. What follows only reads: there is nothing to undo if that fails.
    """
    token = uuid.uuid4().hex
    rows = session.fetch(_CLAIMING, claiming_values(asked, token))
    subjects = _subjects(session, {row[0]: (row[1], row[10]) for row in rows})
    signing = secrets.find_all(session, {row[4] for row in rows})
    return [
        ClaimedDelivery(
            id=row[0],
            operation_id=row[1],
            revision=row[2],
            type=row[3],
            owner=row[4],
            callback_url=row[5],
            host=row[6],
            create_time=row[7],
            number=row[8],
            tries=row[9],
            lease=token,
            claim_time=row[11],
            subject=subjects.get(row[0]),
            secrets=signing[row[4]],
        )
        for row in rows
    ]


def claimer() -> sa.Update:
    """Return the statement that takes what is due: the longest due first, fair between hosts."""
    due = (
        sa.select(_d.id, _d.host, _d.next_attempt_time)
        .where(
            _d.status == _PENDING,
            _d.next_attempt_time <= clock(),
            _d.host.not_in(sa.bindparam("busy", expanding=True)),
        )
        .order_by(_d.next_attempt_time)
        .limit(LOOKED_AT)
        .subquery("due")
    )
    place = sa.func.row_number().over(partition_by=due.c.host, order_by=due.c.next_attempt_time)
    ranked = sa.select(due.c.id, due.c.next_attempt_time, place.label("place")).subquery("ranked")
    chosen = (
        sa.select(ranked.c.id)
        .where(ranked.c.place <= sa.bindparam("per_host", type_=sa.Integer()))
        .order_by(ranked.c.next_attempt_time)
        .limit(sa.bindparam("limit", type_=sa.Integer()))
        .cte("chosen")
    )
    # What another replica took since this statement began is locked no more, and due no more. Said
    # so that no index answers it: all that is due would be read, and what was chosen looked up.
    still_due = (
        sa.func.coalesce(_d.status, "") == _PENDING,
        (sa.func.coalesce(_d.next_attempt_time, clock()) <= clock()),
    )
    locked = (
        sa.select(_d.id)
        .where(_d.id.in_(sa.select(chosen.c.id)), *still_due)
        .with_for_update(skip_locked=True)
        .cte("locked")
    )
    return (
        sa.update(deliveries)
        .where(_d.id == locked.c.id)
        .values(
            lease=sa.bindparam("token"),
            attempts=_d.attempts + 1,
            next_attempt_time=later(clock(), sa.bindparam("lease_time", type_=Span())),
        )
        .returning(
            _d.id,
            _d.operation_id,
            _d.revision,
            _d.type,
            _d.owner,
            _d.callback_url,
            _d.host,
            _d.create_time,
            _d.attempts,
            _d.tries,
            _d.payload,
            clock(),
        )
    )


_CLAIMING: Final = claimer()


def claiming_values(asked: DeliveryClaim, token: str) -> dict[str, Any]:
    """Return what the statement takes."""
    return {
        "limit": asked.limit,
        "per_host": asked.per_host,
        "busy": sorted(asked.busy),
        "lease_time": asked.lease,
        "token": token,
    }


_LIVING: Final = sa.select(operations.c.id, *SUBJECT).where(
    operations.c.id.in_(sa.bindparam("ids", expanding=True))
)


def _subjects(
    session: Session, claimed: Mapping[str, tuple[str, str | None]]
) -> dict[str, Subject]:
    """Return what each delivery tells of: the operation as it is, or what is left of it."""
    wanted = {operation_id for operation_id, left in claimed.values() if left is None}
    rows = session.fetch(_LIVING, {"ids": list(wanted)}) if wanted else []
    living = {row[0]: subject_from(row[1:]) for row in rows}
    subjects = {
        id_: living[operation_id]
        for id_, (operation_id, left) in claimed.items()
        if left is None and operation_id in living
    }
    texts = {id_: left for id_, (_, left) in claimed.items() if left is not None}
    gone = claimed.keys() - subjects.keys() - texts.keys()
    if gone:  # removed since the claim, which left something behind
        rows = session.fetch(sa.select(_d.id, _d.payload).where(_d.id.in_(gone)))
        texts.update({id_: left for id_, left in rows if left is not None})
    return subjects | {id_: subject_from_snapshot(text) for id_, text in texts.items()}


# --- settle ---

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


class SettleStatement:
    """The statement that records attempts and moves their deliveries on."""

    def __init__(self, dialect: Dialect) -> None:
        """Compile it."""
        self._insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
        self._at_once = dialect.name == "postgresql"
        if self._at_once:
            self._whole = Prepared(dialect, _INPUTS, self._one_statement)
            return
        self._attempt_part = Prepared(dialect, _INPUTS, self._record)
        self._whole = Prepared(dialect, _INPUTS, self._move_on)

    def run(self, session: Session, settlements: Sequence[Settlement]) -> list[bool]:
        """Settle all, or none; tell of each whether its lease still held."""
        # Sorted: statements that lock several rows lock them in one order.
        rows = [_values(each) for each in sorted(settlements, key=lambda s: s.id)]
        if self._at_once:
            moved = self._whole.run(session.cursor, rows)
        else:
            with session.atomic() as cursor:
                self._attempt_part.run(cursor, rows)
                moved = self._whole.run(cursor, rows)
        held = {row[0] for row in moved}
        return [each.id in held for each in settlements]

    def _one_statement(self, m: Columns) -> sa.Select[Any]:
        moved = self._move_on(m).cte("moved")
        return sa.select(moved.c.id).add_cte(self._record(m).cte("recorded"))

    def _move_on(self, m: Columns) -> Any:
        pending = m["new_status"] == _PENDING
        return (
            sa.update(deliveries)
            .where(_d.id == m["id"], _d.lease == m["held"], _d.status == _PENDING)
            .values(
                status=m["new_status"],
                tries=m["new_tries"],
                lease=_NOTHING,
                next_attempt_time=later(clock(), m["delay"]),
                settle_time=sa.case((pending, _NOTHING), else_=clock()),
            )
            .returning(_d.id)
        )

    def _record(self, m: Columns) -> Any:
        values = {
            "delivery_id": m["id"],
            **{name: m[name] for name in _INPUTS if name in _a},
        }
        rows = sa.select(*values.values()).where(sa.exists().where(_d.id == m["id"]))
        insert = self._insert(delivery_attempts).from_select(list(values), rows)
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


# --- what owners see and do ---

_SHOWN: Final = (
    _d.id,
    _d.operation_id,
    _d.revision,
    _d.type,
    _d.callback_url,
    _d.status,
    _d.create_time,
    _d.next_attempt_time,
    _d.settle_time,
)


def page(
    session: Session,
    owner: str,
    selection: DeliverySelection,
    after: Position | None,
    limit: int,
) -> list[Delivery]:
    """Return one page, newest first, by keyset."""
    query = (
        sa.select(*_SHOWN)
        .where(_d.owner == owner)
        .order_by(_d.create_time.desc(), _d.id.desc())
        .limit(limit)
    )
    if selection.operation_id is not None:
        query = query.where(_d.operation_id == selection.operation_id)
    if selection.statuses:
        query = query.where(_d.status.in_([status.value for status in selection.statuses]))
    if after is not None:
        query = query.where(
            sa.tuple_(_d.create_time, _d.id)
            < sa.tuple_(sa.literal(after.create_time, Instant()), sa.literal(after.id))
        )
    return _with_attempts(session, session.fetch(query))


def _with_attempts(session: Session, rows: Iterable[Sequence[Any]]) -> list[Delivery]:
    rows = list(rows)
    made: dict[str, list[Attempt]] = {row[0]: [] for row in rows}
    query = (
        sa.select(delivery_attempts)
        .where(_a.delivery_id.in_(made))
        .order_by(_a.delivery_id, _a.number)
    )
    for delivery_id, number, start_time, duration, status_code, error in (
        session.fetch(query) if made else ()
    ):
        made[delivery_id].append(
            Attempt(
                number=number,
                start_time=start_time,
                duration=duration,
                status_code=status_code,
                error=error,
            )
        )
    return [
        Delivery(
            id=row[0],
            operation_id=row[1],
            revision=row[2],
            type=row[3],
            callback_url=row[4],
            status=DeliveryStatus(row[5]),
            create_time=row[6],
            next_attempt_time=max(row[6], row[7]),
            settle_time=row[8],
            attempts=tuple(made[row[0]]),
        )
        for row in rows
    ]


def redeliver(
    session: Session, owner: str, delivery_id: str, request_id: str | None
) -> tuple[Delivery, bool]:
    """Make a settled delivery due again; one conditional update decides."""
    mine = (_d.id == delivery_id, _d.owner == owner)
    repeated = sa.and_(_d.request_id.is_not(None), _d.request_id == request_id)
    changed = session.fetch(
        sa.update(deliveries)
        .where(
            *mine, _d.status.in_(sorted(SETTLED)), sa.not_(sa.func.coalesce(repeated, sa.false()))
        )
        .values(
            status=DeliveryStatus.PENDING.value,
            tries=0,
            lease=_NOTHING,
            next_attempt_time=clock(),
            settle_time=_NOTHING,
            request_id=request_id,
        )
        .returning(_d.id)
    )
    rows = session.fetch(sa.select(*_SHOWN, _d.request_id).where(*mine))
    if not rows:
        raise DeliveryNotFound(delivery_id)
    *shown, last_request_id = rows[0]
    (delivery,) = _with_attempts(session, [shown])
    if changed:
        return delivery, False
    if request_id is not None and request_id == last_request_id:
        return delivery, True
    allowed = tuple(sorted(SETTLED))
    raise IllegalTransition(transition="redeliver", status=delivery.status, allowed=allowed)


def purge(session: Session, kept: timedelta) -> int:
    """Remove what is settled for `kept`, of operations that are gone."""
    # The clock of the database less a span: `later` by a negative one.
    before = later(clock(), sa.literal(-kept, Span()))
    old = (
        sa.select(_d.id)
        .where(_d.payload.is_not(None), _d.settle_time < before)
        .limit(FORGOTTEN_AT_ONCE)
    )
    gone = session.fetch(sa.delete(deliveries).where(_d.id.in_(old)).returning(_d.id))
    ids = [row[0] for row in gone]
    session.connection.execute(sa.delete(delivery_attempts).where(_a.delivery_id.in_(ids)))
    return len(ids)
