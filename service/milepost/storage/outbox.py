"""The ports of webhooks, on a lane of their own where the database has room for one."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from milepost.storage import deliveries, secrets
from milepost.storage.batching import Batcher
from milepost.storage.deliveries import DeliveryClaim, SettleStatement
from milepost.storage.engine import Session
from milepost.storage.secrets import Rotation
from milepost.storage.store import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy.engine import Engine

    from milepost.domain.delivery import (
        ClaimedDelivery,
        Delivery,
        DeliverySelection,
        SealedSecret,
        Settlement,
    )
    from milepost.domain.selection import Position
    from milepost.storage.store import SqlOperationStore

Answer = TypeVar("Answer")


class SqlOutbox:
    """Deliveries and signing secrets in a SQL database. Fills `DeliveryStore` and `SecretStore`.

    On PostgreSQL it has two connections of its own, so that no transition waits for a claim, and
    no claim for a settlement. SQLite has one writer, and this shares it.
    """

    def __init__(self, engine: Engine, store: SqlOperationStore) -> None:
        """Work beside `store`, on its event loop."""
        self._settling = SettleStatement(engine.dialect)
        self._store = store
        self._lanes: tuple[Batcher[Work, Any], ...] = ()
        if engine.dialect.name == "postgresql":
            self._lanes = tuple(
                Batcher(name, Session(engine, pinned_plans=True), _work, kind=lambda work: work.run)
                for name in ("outbox", "outbox-claims")
            )

    async def claim(
        self, *, limit: int, per_host: int, busy: Collection[str], lease: timedelta
    ) -> list[ClaimedDelivery]:
        """See `DeliveryStore.claim`."""
        asked = DeliveryClaim(limit=limit, per_host=per_host, busy=busy, lease=lease)
        claimed: list[ClaimedDelivery] = await self._submit(
            Work(_claim, asked), object(), batcher=-1
        )
        return claimed

    async def settle(self, settlement: Settlement) -> bool:
        """See `DeliveryStore.settle`. Settlements that come together share a transaction."""
        held: bool = await self._submit(
            Work(self._settling.run, settlement), (settlement.id, settlement.lease)
        )
        return held

    async def deliveries(
        self, owner: str, selection: DeliverySelection, after: Position | None, limit: int
    ) -> list[Delivery]:
        """See `DeliveryStore.deliveries`."""
        return await self._store.read(
            lambda session: deliveries.page(session, owner, selection, after, limit)
        )

    async def redeliver(
        self, owner: str, delivery_id: str, request_id: str | None
    ) -> tuple[Delivery, bool]:
        """See `DeliveryStore.redeliver`."""
        return await self._write(
            lambda session: deliveries.redeliver(session, owner, delivery_id, request_id)
        )

    async def purge_deliveries(self, kept: timedelta) -> int:
        """See `DeliveryStore.purge_deliveries`."""
        return await self._write(lambda session: deliveries.purge(session, kept))

    async def secrets(self, owner: str) -> Sequence[SealedSecret]:
        """See `SecretStore.secrets`."""
        return await self._store.read(lambda session: secrets.find(session, owner))

    async def first_secret(self, owner: str, key_id: str, sealed: bytes) -> None:
        """See `SecretStore.first_secret`."""
        first = Rotation(
            owner=owner, key_id=key_id, sealed=sealed, request_id=None, overlap=timedelta(0)
        )
        await self._write(lambda session: secrets.add_first(session, first))

    async def rotate_secret(
        self, owner: str, key_id: str, sealed: bytes, request_id: str | None, overlap: timedelta
    ) -> bool:
        """See `SecretStore.rotate_secret`."""
        rotation = Rotation(
            owner=owner, key_id=key_id, sealed=sealed, request_id=request_id, overlap=overlap
        )
        return await self._write(lambda session: secrets.rotate(session, rotation))

    async def close(self) -> None:
        """Finish what was taken, then close the connections."""
        await asyncio.gather(*(batcher.close() for batcher in self._lanes))

    async def _write(self, run: Callable[[Session], Answer]) -> Answer:
        answer: Answer = await self._submit(Work(_each, run), object())
        return answer

    async def _submit(self, work: Work, key: object, *, batcher: int = 0) -> Any:
        if not self._lanes:
            return await self._store.work(work, key)
        return await self._lanes[batcher].submit(work, key)


def _work(session: Session, items: Sequence[Work]) -> Sequence[Any]:
    return items[0].run(session, [work.item for work in items])


def _claim(session: Session, asked: Sequence[DeliveryClaim]) -> Sequence[list[ClaimedDelivery]]:
    return [deliveries.claim(session, each) for each in asked]


def _each(session: Session, runs: Sequence[Callable[[Session], Any]]) -> Sequence[Any]:
    """Run each by itself: one that fails leaves the others done, and they must not run again."""
    answers = []
    for run in runs:
        try:
            with session.atomic():
                answers.append(run(session))
        except Exception as error:  # noqa: BLE001 - told to the one caller that it concerns
            answers.append(session.failed(error))
    return answers
