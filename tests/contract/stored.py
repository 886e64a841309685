"""What the database holds, read beside the store that is tested."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from milepost.domain.operation import OperationId
from milepost.storage.tables import deliveries, events, operations

Row = dict[str, Any]


class Stored:
    """The rows of a database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def operation(self, operation_id: OperationId) -> Row | None:
        """The row of an operation."""
        rows = self._rows(sa.select(operations).where(operations.c.id == operation_id))
        return rows[0] if rows else None

    def events(self, operation_id: OperationId) -> list[Row]:
        """The events of an operation, oldest first."""
        mine = events.c.operation_id == operation_id
        return self._rows(sa.select(events).where(mine).order_by(events.c.revision))

    def deliveries(self, operation_id: OperationId) -> list[Row]:
        """The deliveries of an operation, oldest first."""
        mine = deliveries.c.operation_id == operation_id
        return self._rows(sa.select(deliveries).where(mine).order_by(deliveries.c.revision))

    def everything(self, operation_id: OperationId) -> tuple[Row | None, list[Row], list[Row]]:
        """All that is stored about an operation, to be compared with what is later."""
        return (
            self.operation(operation_id),
            self.events(operation_id),
            self.deliveries(operation_id),
        )

    def count(self) -> int:
        """How many operations there are."""
        return len(self._rows(sa.select(operations.c.id)))

    def active(self, owner: str) -> int:
        """How many operations of an owner are pending or processing."""
        status = operations.c.status.in_(["PENDING", "PROCESSING"])
        return len(
            self._rows(sa.select(operations.c.id).where(operations.c.owner == owner, status))
        )

    def execute(self, statement: sa.Executable, rows: list[Row] | None = None) -> None:
        """Change rows behind the back of the store."""
        with self.engine.begin() as connection:
            connection.execute(statement, rows)

    @contextmanager
    def held(self, operation_id: OperationId) -> Iterator[None]:
        """Whoever moves this operation meanwhile waits: on SQLite, whoever writes at all."""
        query = sa.select(operations.c.id).where(operations.c.id == operation_id)
        with self.engine.begin() as connection:
            connection.execute(query.with_for_update())
            yield

    def _rows(self, query: sa.Select[Any]) -> list[Row]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


async def answers(*calls: Awaitable[Any]) -> list[Any]:
    """What each of the calls, all made at once, was answered: a value or an error."""
    return await asyncio.gather(*calls, return_exceptions=True)
