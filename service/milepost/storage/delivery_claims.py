"""Claims of deliveries: what is due is leased to one dispatcher, fairly between hosts.

A claim is one short statement. It sets `next_attempt_time` to where its lease ends, so that the one
partial index serves for what is due, what is leased, and what was left behind by a dispatcher that
died.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.delivery import ClaimedDelivery
from milepost.storage import signing_secrets
from milepost.storage.dialects import Span, clock, later
from milepost.storage.snapshots import SUBJECT, subject_from, subject_from_snapshot
from milepost.storage.tables import deliveries, operations

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import timedelta

    from sqlalchemy import ColumnElement

    from milepost.domain.delivery import Subject
    from milepost.storage.session import AnyRow, Session

MAX_DUE: Final = 1_000
"""How many due deliveries one claim looks at to be fair between hosts: bounds its cost."""
_d = deliveries.c
_PENDING: Final[ColumnElement[str]] = sa.literal_column("'PENDING'")  # as the partial index has it


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
    subjects = _subjects(session, rows)
    secrets = signing_secrets.find_all(session, {row.owner for row in rows})
    return [
        ClaimedDelivery(
            id=row.id,
            operation_id=row.operation_id,
            revision=row.revision,
            type=row.type,
            owner=row.owner,
            callback_url=row.callback_url,
            host=row.host,
            create_time=row.create_time,
            number=row.attempts,
            tries=row.tries,
            lease=token,
            claim_time=row.claim_time,
            subject=subjects.get(row.id),
            secrets=secrets[row.owner],
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
        .limit(MAX_DUE)
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
            clock().label("claim_time"),
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


def _subjects(session: Session, claimed: Sequence[AnyRow]) -> dict[str, Subject]:
    """Return what each delivery tells of: the operation as it is, or what is left of it."""
    left = {row.id: row.payload for row in claimed if row.payload is not None}
    wanted = {row.id: row.operation_id for row in claimed if row.payload is None}
    living = _living(session, set(wanted.values()))
    subjects = {id_: living[wanted[id_]] for id_ in wanted if wanted[id_] in living}
    gone = wanted.keys() - subjects.keys()
    if gone:  # removed since the claim, which left something behind
        rows = session.fetch(sa.select(_d.id, _d.payload).where(_d.id.in_(gone)))
        left.update({row.id: row.payload for row in rows if row.payload is not None})
    return subjects | {id_: subject_from_snapshot(text) for id_, text in left.items()}


def _living(session: Session, ids: Collection[str]) -> dict[str, Subject]:
    """Return what there is to tell of the operations that are still there."""
    rows = session.fetch(_LIVING, {"ids": list(ids)}) if ids else []
    return {row.id: subject_from(row) for row in rows}
