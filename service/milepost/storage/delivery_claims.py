"""Claims of deliveries: due ones are leased to one dispatcher, fairly between receivers.

A claim is one short statement. It sets `next_attempt_time` to the end of its lease, so that one
partial index serves due deliveries, leased ones, and those of a dispatcher that died.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.delivery import ClaimedDelivery
from milepost.storage import signing_secrets
from milepost.storage.dialects import Span, clock, json_items, later
from milepost.storage.snapshots import (
    SNAPSHOT_COLUMNS,
    operation_snapshot_from,
    operation_snapshot_from_json,
)
from milepost.storage.tables import deliveries, operations

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement

    from milepost.domain.delivery import DeliveryClaim, OperationSnapshot
    from milepost.storage.session import AnyRow, Session

MAX_DUE: Final = 1_000
"""Due deliveries that one claim ranks to be fair between hosts: bounds its cost."""
_d = deliveries.c
_PENDING: Final[ColumnElement[str]] = sa.literal_column(
    "'PENDING'"
)  # literally as in the partial index
_DESTINATION: Final[ColumnElement[str]] = _d.host + " " + _d.owner
"""As `ClaimedDelivery.destination`."""


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


def _due() -> sa.Subquery:
    """Return the due deliveries of receivers that are not busy, longest due first."""
    busy = json_items(sa.bindparam("busy", type_=sa.Text()))
    on_trial = json_items(sa.bindparam("on_trial", type_=sa.Text()))
    host_on_trial = _d.host.bool_op("IN")(on_trial)
    destination_on_trial = _DESTINATION.bool_op("IN")(on_trial)
    return (
        sa.select(
            _d.id,
            _d.host,
            sa.case((host_on_trial, _d.host), else_=_DESTINATION).label("receiver"),
            sa.or_(host_on_trial, destination_on_trial).label("on_trial"),
            _d.next_attempt_time,
        )
        .where(
            _d.status == _PENDING,
            _d.next_attempt_time <= clock(),
            _d.host.bool_op("NOT IN")(busy),
            _DESTINATION.bool_op("NOT IN")(busy),
        )
        .order_by(_d.next_attempt_time)
        .limit(MAX_DUE)
        .subquery("due")
    )


def _numbered(column: ColumnElement[Any], time: ColumnElement[Any]) -> ColumnElement[int]:
    return sa.func.row_number().over(partition_by=column, order_by=time)


def _chosen() -> sa.CTE:
    """Return the ids to claim: a few of each host, one of each receiver on trial."""
    due = _due()
    time = due.c.next_attempt_time
    ranked = sa.select(
        due.c.id,
        due.c.on_trial,
        time,
        _numbered(due.c.host, time).label("of_host"),
        _numbered(due.c.receiver, time).label("of_receiver"),
    ).subquery("ranked")
    fair = (
        sa.select(
            ranked.c.id,
            ranked.c.on_trial,
            _numbered(ranked.c.on_trial, ranked.c.next_attempt_time).label("number"),
        )
        .where(
            ranked.c.of_host <= sa.bindparam("per_host", type_=sa.Integer()),
            sa.or_(sa.not_(ranked.c.on_trial), ranked.c.of_receiver == 1),
        )
        .subquery("fair")
    )
    limit = sa.case(
        (fair.c.on_trial, sa.bindparam("on_trial_limit", type_=sa.Integer())),
        else_=sa.bindparam("limit", type_=sa.Integer()),
    )
    return sa.select(fair.c.id).where(fair.c.number <= limit).cte("chosen")


def claim_statement() -> sa.Update:
    """Return the statement that claims due deliveries, longest due first, fair to receivers."""
    chosen = _chosen()
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
        "busy": json.dumps(sorted(request.busy)),
        "on_trial": json.dumps(sorted(request.on_trial)),
        "on_trial_limit": request.on_trial_limit,
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
