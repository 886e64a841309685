"""Claims of deliveries: due ones are leased to one dispatcher, fairly between hosts.

A claim is one short statement. It sets `next_attempt_time` to the end of its lease, so that one
partial index serves due deliveries, leased ones, and those of a dispatcher that died.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.delivery import ClaimedDelivery
from milepost.storage import signing_secrets
from milepost.storage.dialects import Span, clock, later
from milepost.storage.snapshots import (
    SNAPSHOT_COLUMNS,
    operation_snapshot_from,
    operation_snapshot_from_json,
)
from milepost.storage.tables import deliveries, operations

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import timedelta

    from sqlalchemy import ColumnElement

    from milepost.domain.delivery import OperationSnapshot
    from milepost.storage.session import AnyRow, Session

MAX_DUE: Final = 1_000
"""Due deliveries that one claim ranks to be fair between hosts: bounds its cost."""
_d = deliveries.c
_PENDING: Final[ColumnElement[str]] = sa.literal_column(
    "'PENDING'"
)  # literally as in the partial index


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryClaim:
    """Request of a dispatcher for due deliveries."""

    limit: int
    per_host: int
    busy: Collection[str]
    lease: timedelta


def claim(session: Session, request: DeliveryClaim) -> list[ClaimedDelivery]:
    """Claim due deliveries, and read the snapshots and secrets that their webhooks need.

    One statement claims. The rest only reads, so that a failure leaves nothing to undo.
    """
    token = uuid.uuid4().hex
    rows = session.fetch(_CLAIM, claiming_values(request, token))
    snapshots = _snapshots(session, rows)
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
            snapshot=snapshots.get(row.id),
            secrets=secrets[row.owner],
        )
        for row in rows
    ]


def claim_statement() -> sa.Update:
    """Return the statement that claims due deliveries, longest due first, fair between hosts."""
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
    # A delivery that another replica claimed since this statement began is no longer locked, nor
    # due. COALESCE keeps the index of due deliveries out of the lookup of the chosen ones.
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


_CLAIM: Final = claim_statement()


def claiming_values(request: DeliveryClaim, token: str) -> dict[str, Any]:
    """Return the parameters of `claim_statement`."""
    return {
        "limit": request.limit,
        "per_host": request.per_host,
        "busy": sorted(request.busy),
        "lease_time": request.lease,
        "token": token,
    }


_OPERATIONS: Final = sa.select(operations.c.id, *SNAPSHOT_COLUMNS).where(
    operations.c.id.in_(sa.bindparam("ids", expanding=True))
)


def _snapshots(session: Session, claimed: Sequence[AnyRow]) -> dict[str, OperationSnapshot]:
    """Return the operation of each delivery as it is, or as it was when it was removed."""
    stored = {row.id: row.payload for row in claimed if row.payload is not None}
    wanted = {row.id: row.operation_id for row in claimed if row.payload is None}
    existing = _existing(session, set(wanted.values()))
    snapshots = {id_: existing[wanted[id_]] for id_ in wanted if wanted[id_] in existing}
    missing = wanted.keys() - snapshots.keys()
    if missing:  # removed since the claim: the removal stored a snapshot
        rows = session.fetch(sa.select(_d.id, _d.payload).where(_d.id.in_(missing)))
        stored.update({row.id: row.payload for row in rows if row.payload is not None})
    return snapshots | {id_: operation_snapshot_from_json(text) for id_, text in stored.items()}


def _existing(session: Session, ids: Collection[str]) -> dict[str, OperationSnapshot]:
    """Return snapshots of the operations that still exist."""
    rows = session.fetch(_OPERATIONS, {"ids": list(ids)}) if ids else []
    return {row.id: operation_snapshot_from(row) for row in rows}
