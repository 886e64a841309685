"""Operations in a SQL database: creates, transitions, deletions and reads.

Each method submits its call to a batcher, which runs it together with others in one statement. The
statements derive from the transition table: see `statements.py`.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.errors import LostRace, OperationDeleted
from milepost.domain.operation import Status
from milepost.domain.pages import Page
from milepost.domain.ports import ignore
from milepost.storage.absence import explain_absence
from milepost.storage.creation import Creation
from milepost.storage.effects import EFFECTS
from milepost.storage.pages import Pages
from milepost.storage.predicates import (
    ACCESS_FILTER,
    access_filter_values,
    is_accessible,
    unexpired,
)
from milepost.storage.prepared import Prepared
from milepost.storage.rows import (
    COLUMNS,
    RowReader,
    status_snapshot_from,
)
from milepost.storage.tables import operations
from milepost.storage.transaction_spans import named
from milepost.storage.transition_statements import TransitionStatements

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import ColumnElement

    from milepost.domain.errors import MilepostError
    from milepost.domain.interruption import StatusSnapshot
    from milepost.domain.operation import AccessFilter, NewOperation, Operation, OperationId
    from milepost.domain.selection import Position, Selection
    from milepost.domain.transitions import TransitionRequest, TransitionResult
    from milepost.storage.batchers import Batchers
    from milepost.storage.database import Database
    from milepost.storage.session import Session

_o = operations.c

MAX_TRIES: Final = 3
"""Attempts at a transition when concurrent changes come first."""
MAX_PAUSE_S: Final = 0.02
MAX_READ: Final = 32
"""Operations that one statement reads by their ids: drivers hold a result several times."""


class SqlOperationStore:
    """Implementation of the port `OperationStore`."""

    def __init__(self, batchers: Batchers) -> None:
        """Compile every statement once."""
        database = batchers.database
        self._batchers = batchers
        self._creation = Creation(database)
        self._transitions = {
            transition: TransitionStatements(database, transition) for transition in EFFECTS
        }
        self._rows = RowReader(database)
        self._get = get_statement(database)
        self._status_snapshots = status_snapshots_statement(database)
        self._pages = Pages(database)

    async def insert(
        self,
        operation_id: OperationId,
        new_operation: NewOperation,
        on_abandoned: Callable[[TransitionResult | None], None] = ignore,
    ) -> TransitionResult | None:
        """See `OperationStore.insert`."""
        request_id = new_operation.request_id
        key = (new_operation.owner, request_id) if request_id else operation_id
        item = (operation_id, new_operation)
        return await self._batchers.writes.call(self._creation.insert, item, key, on_abandoned)

    async def apply(
        self, request: TransitionRequest, on_abandoned: Callable[[TransitionResult], None] = ignore
    ) -> TransitionResult:
        """See `OperationStore.apply`."""
        statements = self._transitions[request.transition]
        for tries in range(1, MAX_TRIES + 1):
            try:
                return await self._batchers.writes.call(
                    statements.apply, request, request.id, on_abandoned
                )
            except LostRace:
                if tries == MAX_TRIES:
                    raise LostRace(request.id, tries=MAX_TRIES) from None
                await asyncio.sleep(random.uniform(0, MAX_PAUSE_S))  # noqa: S311 - a pause
        raise AssertionError  # the last try returns or raises

    async def delete(
        self, request: TransitionRequest, on_abandoned: Callable[[TransitionResult], None] = ignore
    ) -> TransitionResult | None:
        """See `OperationStore.delete`."""
        try:
            return await self.apply(request, on_abandoned)
        except OperationDeleted as deleted:
            if request.request_id is None or deleted.request_id != request.request_id:
                raise
            return None

    async def get(self, operation_id: OperationId, access_filter: AccessFilter) -> Operation:
        """See `OperationStore.get`."""
        item = (operation_id, access_filter)
        return await self._batchers.reads.submit(self._get_all, item, object())

    async def list(
        self,
        access_filter: AccessFilter,
        selection: Selection,
        after: Position | None,
        limit: int,
        *,
        full: bool,
        max_bytes: int,
    ) -> Page[Operation]:
        """See `OperationStore.list`."""
        return await self._batchers.read(
            lambda session: self._pages.read(
                session, access_filter, selection, after, limit, full=full, max_bytes=max_bytes
            )
        )

    async def status_snapshots(
        self, operation_ids: Sequence[OperationId]
    ) -> Sequence[StatusSnapshot]:
        """See `OperationStore.status_snapshots`."""
        ids = [(operation_id,) for operation_id in operation_ids]
        rows = await self._batchers.read(lambda session: session.read(self._status_snapshots, ids))
        return [status_snapshot_from(row) for row in rows]

    @named("SELECT", "operations")
    def _get_all(
        self, session: Session, keys: Sequence[tuple[OperationId, AccessFilter]]
    ) -> Sequence[Operation | MilepostError]:
        """Return each operation, or the error of its caller.

        An operation that several calls want, such as those that watch it, is read once.
        """
        distinct = list(dict.fromkeys(keys))
        inputs = [
            (operation_id, *access_filter_values(access_filter), number)
            for number, (operation_id, access_filter) in enumerate(distinct)
        ]
        found: dict[tuple[OperationId, AccessFilter], Operation] = {}
        for first in range(0, len(inputs), MAX_READ):
            for *row, number in session.read(self._get, inputs[first : first + MAX_READ]):
                found[distinct[number]] = self._rows.operation(row)
        return [found.get(key) or explain_absence(session, *key) for key in keys]


# --- the statements that read ---


def get_statement(database: Database) -> Prepared:
    """Return the query by id; its last column is the number of the input row."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> sa.Executable:
        return sa.select(*COLUMNS, m["number"]).where(
            _o.id == m["id"], is_accessible(m), unexpired()
        )

    return Prepared(database, {"id": sa.Text(), **ACCESS_FILTER, "number": sa.Integer()}, build)


def status_snapshots_statement(database: Database) -> Prepared:
    """Return the query for the status of some operations, in the order of `StatusSnapshot`.

    Only failed operations have errors; no other payload is read.
    """
    errors = sa.case((_o.status == sa.literal_column(f"'{Status.FAILED}'"), _o.errors))
    is_cancel_requested = _o.cancel_request_time.is_not(None)
    columns = (_o.id, _o.status, _o.revision, _o.attempt, errors, is_cancel_requested)

    def build(m: Mapping[str, ColumnElement[Any]]) -> sa.Executable:
        return sa.select(*columns).where(_o.id == m["id"])

    return Prepared(database, {"id": sa.Text()}, build)
