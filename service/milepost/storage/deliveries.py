"""Deliveries in a SQL database: claims, settlements, lists, redeliveries and purges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from milepost.domain.delivery import SETTLED, Attempt, Delivery, DeliveryStatus
from milepost.domain.errors import DeliveryNotFound, IllegalTransition
from milepost.storage import delivery_claims
from milepost.storage.batchers import alone, atomic
from milepost.storage.dialects import Instant, Span, clock, later
from milepost.storage.pages import newest_first
from milepost.storage.predicates import ordered_status
from milepost.storage.settlements import settle_statement
from milepost.storage.tables import deliveries, delivery_attempts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta

    from milepost.domain.delivery import (
        ClaimedDelivery,
        DeliveryClaim,
        DeliverySelection,
        Settlement,
    )
    from milepost.domain.selection import Position
    from milepost.storage.batchers import Batchers
    from milepost.storage.session import AnyRow, Session

Found = TypeVar("Found")

MAX_PURGED: Final = 1_000
"""Deliveries that one purge removes."""
_d = deliveries.c
_a = delivery_attempts.c
_NULL: Final = sa.null()


class SqlDeliveryStore:
    """Implementation of the port `DeliveryStore`."""

    def __init__(self, batchers: Batchers) -> None:
        """Compile every statement once."""
        self._batchers = batchers
        self._settle_statement = settle_statement(batchers.database)

    async def claim(self, request: DeliveryClaim) -> list[ClaimedDelivery]:
        """See `DeliveryStore.claim`."""
        run = alone(lambda session: delivery_claims.claim(session, request))
        return await self._batchers.delivery_claims.submit(run, None, object())

    async def settle(self, settlement: Settlement) -> bool:
        """See `DeliveryStore.settle`. Concurrent settlements share a statement."""
        key = (settlement.id, settlement.lease)
        return await self._batchers.deliveries.submit(self._settle_statement.run, settlement, key)

    async def deliveries(
        self, owner: str, selection: DeliverySelection, after: Position | None, limit: int
    ) -> list[Delivery]:
        """See `DeliveryStore.deliveries`."""
        return await self._batchers.read(
            lambda session: page(session, owner, selection, after, limit)
        )

    async def redeliver(
        self, owner: str, delivery_id: str, request_id: str | None
    ) -> tuple[Delivery, bool]:
        """See `DeliveryStore.redeliver`."""
        return await self._write(lambda session: redeliver(session, owner, delivery_id, request_id))

    async def purge_deliveries(self, kept: timedelta) -> int:
        """See `DeliveryStore.purge_deliveries`."""
        return await self._write(lambda session: purge(session, kept))

    def _write(self, run: Callable[[Session], Found]) -> asyncio.Future[Found]:
        return self._batchers.deliveries.submit(atomic(run), None, object())


_COLUMNS: Final = (
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
    return _with_attempts(session, session.fetch(page_query(owner, selection, after, limit)))


def page_query(
    owner: str, selection: DeliverySelection, after: Position | None, limit: int
) -> sa.Select[Any] | sa.CompoundSelect[Any]:
    """Return the query for a page: one part for each status, as of a list of operations.

    Those of one operation are few, and are sorted.
    """
    query = sa.select(*_COLUMNS).where(_d.owner == owner)
    if after is not None:
        query = query.where(
            sa.tuple_(_d.create_time, _d.id)
            < sa.tuple_(sa.literal(after.create_time, Instant()), sa.literal(after.id))
        )
    statuses = sorted(set(selection.statuses or DeliveryStatus))
    if selection.operation_id is not None:
        # In this form only the index of the operation serves the query.
        status = sa.func.coalesce(_d.status, "")
        few = query.where(_d.operation_id == selection.operation_id, status.in_(statuses))
        return few.order_by(_d.create_time.desc(), _d.id.desc()).limit(limit)
    parts = [query.where(ordered_status(_d.status, status)) for status in statuses]
    return newest_first(parts, limit)


def _with_attempts(session: Session, rows: Sequence[AnyRow]) -> list[Delivery]:
    attempts: dict[str, list[Attempt]] = {row.id: [] for row in rows}
    query = (
        sa.select(delivery_attempts)
        .where(_a.delivery_id.in_(attempts))
        .order_by(_a.delivery_id, _a.number)
    )
    for row in session.fetch(query) if attempts else ():
        attempts[row.delivery_id].append(_attempt(row))
    return [_delivery(row, attempts[row.id]) for row in rows]


def _attempt(row: AnyRow) -> Attempt:
    return Attempt(
        number=row.number,
        start_time=row.start_time,
        duration=row.duration,
        status_code=row.status_code,
        error=row.error,
    )


def _delivery(row: AnyRow, attempts: Iterable[Attempt]) -> Delivery:
    return Delivery(
        id=row.id,
        operation_id=row.operation_id,
        revision=row.revision,
        type=row.type,
        callback_url=row.callback_url,
        status=DeliveryStatus(row.status),
        create_time=row.create_time,
        next_attempt_time=max(row.create_time, row.next_attempt_time),
        settle_time=row.settle_time,
        attempts=tuple(attempts),
    )


def redeliver(
    session: Session, owner: str, delivery_id: str, request_id: str | None
) -> tuple[Delivery, bool]:
    """Make a settled delivery due again; one conditional update decides."""
    selected = (_d.id == delivery_id, _d.owner == owner)
    repeated = sa.and_(_d.request_id.is_not(None), _d.request_id == request_id)
    changed = session.fetch(
        sa.update(deliveries)
        .where(
            *selected,
            _d.status.in_(sorted(SETTLED)),
            sa.not_(sa.func.coalesce(repeated, sa.false())),
        )
        .values(
            status=DeliveryStatus.PENDING.value,
            tries=0,
            lease=_NULL,
            next_attempt_time=clock(),
            settle_time=_NULL,
            request_id=request_id,
        )
        .returning(_d.id)
    )
    rows = session.fetch(sa.select(*_COLUMNS, _d.request_id).where(*selected))
    if not rows:
        raise DeliveryNotFound(delivery_id)
    (delivery,) = _with_attempts(session, rows)
    if changed:
        return delivery, False
    if request_id is not None and request_id == rows[0].request_id:
        return delivery, True
    allowed = tuple(sorted(SETTLED))
    raise IllegalTransition(transition="redeliver", status=delivery.status, allowed=allowed)


def purge(session: Session, kept: timedelta) -> int:
    """Remove deliveries of missing operations that were settled longer ago than `kept`."""
    # `later` with a negative span subtracts.
    before = later(clock(), sa.literal(-kept, Span()))
    old = sa.select(_d.id).where(_d.payload.is_not(None), _d.settle_time < before).limit(MAX_PURGED)
    removed = session.fetch(sa.delete(deliveries).where(_d.id.in_(old)).returning(_d.id))
    ids = [row.id for row in removed]
    session.connection.execute(sa.delete(delivery_attempts).where(_a.delivery_id.in_(ids)))
    return len(ids)
