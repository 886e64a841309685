"""The stored rows, read without the store under test."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from milepost.domain.history import Event
from milepost.domain.operation import Operation, OperationId
from milepost.storage.stores import Stores
from milepost.storage.tables import deliveries, events, operations
from tests import factories

Row = dict[str, Any]


class Stored:
    """The rows of a database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def operation(self, operation_id: OperationId) -> Row | None:
        """Return the row of an operation."""
        rows = self._rows(sa.select(operations).where(operations.c.id == operation_id))
        return rows[0] if rows else None

    def events(self, operation_id: OperationId) -> list[Row]:
        """Return the events of an operation, oldest first."""
        of_operation = events.c.operation_id == operation_id
        return self._rows(sa.select(events).where(of_operation).order_by(events.c.revision))

    def deliveries(self, operation_id: OperationId) -> list[Row]:
        """Return the deliveries of an operation, oldest first."""
        of_operation = deliveries.c.operation_id == operation_id
        return self._rows(sa.select(deliveries).where(of_operation).order_by(deliveries.c.revision))

    def everything(self, operation_id: OperationId) -> tuple[Row | None, list[Row], list[Row]]:
        """Return all rows of an operation, for comparison with a later state."""
        return (
            self.operation(operation_id),
            self.events(operation_id),
            self.deliveries(operation_id),
        )

    def count(self) -> int:
        """Return the number of operations."""
        return len(self._rows(sa.select(operations.c.id)))

    def active(self, owner: str) -> int:
        """Return the number of active operations of an owner."""
        status = operations.c.status.in_(["PENDING", "PROCESSING"])
        return len(
            self._rows(sa.select(operations.c.id).where(operations.c.owner == owner, status))
        )

    def execute(self, statement: sa.Executable, rows: list[Row] | None = None) -> None:
        """Change rows without the store."""
        with self.engine.begin() as connection:
            connection.execute(statement, rows)

    @contextmanager
    def held(self, operation_id: OperationId) -> Iterator[None]:
        """Lock the row of an operation; on SQLite, the whole database."""
        query = sa.select(operations.c.id).where(operations.c.id == operation_id)
        with self.engine.begin() as connection:
            connection.execute(query.with_for_update())
            yield

    def _rows(self, query: sa.Select[Any]) -> list[Row]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


async def history_of(stores: Stores, operation: Operation, *, after: int = 0) -> list[Event]:
    """Return the events of an operation after a revision, as its owner may list them."""
    page = await stores.history.events(
        operation.id, after=after, limit=100, max_bytes=factories.PLENTY
    )
    assert page.is_last
    return page.items


async def answers(*calls: Awaitable[Any]) -> list[Any]:
    """Return the results or errors of concurrent calls."""
    return await asyncio.gather(*calls, return_exceptions=True)
