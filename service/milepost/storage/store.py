"""The store: the ports of the domain, on lanes that gather calls in front of the SQL."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from milepost.domain.errors import LostRace, OperationDeleted
from milepost.domain.lifecycle import Change, Move
from milepost.storage import queries
from milepost.storage.batching import LARGEST_BATCH, Lane
from milepost.storage.credentials import find_key
from milepost.storage.engine import Session
from milepost.storage.operations import Operations
from milepost.storage.rows import operation_from

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from sqlalchemy.engine import Engine

    from milepost.domain.operation import Draft, Operation, OperationId, Scope
    from milepost.domain.ports import Outcome, Position, Selection, StoredKey

    Query = Callable[[Session], Any]

Found = TypeVar("Found")


class Work(NamedTuple):
    """Something else to write: `run` gets the items that come together, and answers each."""

    run: Callable[[Session, Sequence[Any]], Sequence[Any]]
    item: Any


TRIES: Final = 3
"""How often a move is tried that other changes overtook."""
LONGEST_PAUSE_S: Final = 0.02
QUERY_LANES: Final = 2
"""How many lists and other rare reads run at once."""


class SqlOperationStore:
    """Operations in a SQL database. Create and close it on a running event loop."""

    def __init__(self, engine: Engine, *, gathering: bool = True) -> None:
        """Start the lanes; `gathering` off runs every call in a transaction of its own."""
        self._operations = Operations(engine.dialect)
        largest = LARGEST_BATCH if gathering else 1
        self._writes: Lane[Any, Any] = Lane(
            "writes",
            Session(engine, pinned_plans=True),
            self._write,
            kind=_kind,
            largest_batch=largest,
        )
        self._reads: Lane[tuple[OperationId, Scope], Operation] = Lane(
            "reads",
            Session(engine, pinned_plans=True, read_only=True),
            self._operations.get,
            largest_batch=largest,
            repeatable=True,
        )
        self._queries: list[Lane[Query, Any]] = [
            Lane(
                f"query-{number}",
                Session(engine, read_only=True),
                _query,
                largest_batch=1,
                repeatable=True,
            )
            for number in range(QUERY_LANES)
        ]
        self._turn = 0

    def _write(self, session: Session, items: Sequence[Any]) -> Sequence[Any]:
        """Run the creates or the moves of one kind, or what else there is to write."""
        if isinstance(items[0], Work):
            return items[0].run(session, [work.item for work in items])
        if isinstance(items[0], Change):
            return self._operations.apply(session, items)
        return self._operations.insert(session, items)

    async def insert(self, operation_id: OperationId, draft: Draft) -> Outcome | None:
        """See `OperationStore.insert`."""
        key = (draft.owner, draft.request_id) if draft.request_id else operation_id
        outcome: Outcome | None = await self._writes.submit((operation_id, draft), key)
        return outcome

    async def apply(self, change: Change) -> Outcome:
        """See `OperationStore.apply`."""
        for _ in range(TRIES - 1):
            try:
                return await self._apply(change)
            except LostRace:
                await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_S))  # noqa: S311 - a pause
        try:
            return await self._apply(change)
        except LostRace:
            raise LostRace(change.id, tries=TRIES) from None

    async def _apply(self, change: Change) -> Outcome:
        outcome: Outcome = await self._writes.submit(change, change.id)
        return outcome

    async def forget(self, change: Change) -> None:
        """See `OperationStore.forget`."""
        try:
            await self.apply(change)
        except OperationDeleted as deleted:
            if change.request_id is None or deleted.request_id != change.request_id:
                raise

    async def get(self, operation_id: OperationId, scope: Scope) -> Operation:
        """See `OperationStore.get`."""
        asked = (operation_id, scope)
        return await self._reads.submit(asked, object())

    async def list(
        self, scope: Scope, selection: Selection, after: Position | None, limit: int, *, full: bool
    ) -> list[Operation]:
        """See `OperationStore.list`."""
        query = queries.select_page(scope, selection, after, limit, full=full)
        rows = await self._run(lambda session: session.fetch(query))
        return [operation_from(row) for row in rows]

    async def find_key(self, key_id: str) -> StoredKey | None:
        """See `CredentialStore.find_key`."""
        key: StoredKey | None = await self._run(lambda session: find_key(session, key_id))
        return key

    async def ping(self) -> None:
        """Return when the database answers; raise `StoreUnavailable` when it does not."""
        await self._run(lambda session: session.fetch(queries.PING))

    async def read(self, query: Callable[[Session], Found]) -> Found:
        """Return what `query` finds; it may run again after a lost connection."""
        found: Found = await self._run(query)
        return found

    async def work(self, work: Work, key: Hashable) -> Any:
        """Return the answer to the item of `work`, written between the moves."""
        return await self._writes.submit(work, key)

    async def _run(self, query: Query) -> Any:
        self._turn = (self._turn + 1) % len(self._queries)
        return await self._queries[self._turn].submit(query, object())

    async def close(self) -> None:
        """Finish what was taken, then close every connection."""
        await asyncio.gather(
            *(lane.close() for lane in (self._writes, self._reads, *self._queries))
        )


def _kind(item: Change | tuple[OperationId, Draft] | Work) -> Hashable:
    if isinstance(item, Work):
        return item.run
    return item.move if isinstance(item, Change) else Move.CREATE


def _query(session: Session, queries: Sequence[Query]) -> Sequence[Any]:
    return [query(session) for query in queries]
