"""The store: the ports of the domain, on lanes that gather calls in front of the SQL."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from milepost.domain.claim import ClaimRequest
from milepost.domain.errors import LostRace, OperationDeleted
from milepost.domain.transitions import Transition, TransitionRequest
from milepost.storage import api_keys, claims, history, queries, sweeps
from milepost.storage.batching import MAX_BATCH, Batcher
from milepost.storage.claims import Claims
from milepost.storage.engine import Session
from milepost.storage.operations import Operations
from milepost.storage.rows import operation_from, status_snapshot_from
from milepost.storage.sweeps import Sweeps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
    from datetime import timedelta

    import sqlalchemy as sa
    from sqlalchemy.engine import Engine

    from milepost.domain.api_key import (
        ApiKey,
        CreateKeyRequest,
        CreateKeyResult,
        KeySelection,
        StoredKey,
    )
    from milepost.domain.history import StatusChange
    from milepost.domain.interruption import StatusSnapshot
    from milepost.domain.operation import AccessFilter, NewOperation, Operation, OperationId
    from milepost.domain.selection import Position, Selection
    from milepost.domain.transitions import TransitionResult

    Query = Callable[[Session], Any]

Found = TypeVar("Found")


class Work(NamedTuple):
    """Something else to write: `run` gets the items that come together, and answers each."""

    run: Callable[[Session, Sequence[Any]], Sequence[Any]]
    item: Any


TRIES: Final = 3
"""How often a transition is tried that other changes overtook."""
LONGEST_PAUSE_S: Final = 0.02
MOST_FUNCTIONS: Final = 100
"""Functions that one read of pending work asks for."""
SWEEP_TIMEOUT_S: Final = 4.5
"""How long one part of a sweep may take: nobody waits for it."""
QUERY_BATCHERS: Final = 2
"""How many lists and other rare reads run at once."""


class SqlOperationStore:
    """Operations in a SQL database. Create and close it on a running event loop."""

    def __init__(self, engine: Engine, *, batching: bool = True) -> None:
        """Start the batchers; without `batching` every call runs in a transaction of its own."""
        self._operations = Operations(engine.dialect)
        self._revisions = history.revisions(engine.dialect)
        largest = MAX_BATCH if batching else 1
        self._writes: Batcher[Any, Any] = Batcher(
            "writes",
            Session(engine, pinned_plans=True),
            self._write,
            kind=_kind,
            largest_batch=largest,
        )
        self._claims = Claims(engine.dialect)
        # Where writers do not exclude each other, claims need not wait for the other writes.
        self._claiming: Batcher[Any, Any] = (
            self._writes
            if engine.dialect.name == "sqlite"
            else Batcher("claims", Session(engine, pinned_plans=True), self._write, largest_batch=1)
        )
        self._sweeps = Sweeps(engine.dialect)
        self._sweeping: Batcher[Any, Any] = (
            self._writes
            if engine.dialect.name == "sqlite"
            else Batcher(
                "sweeps",
                Session(engine, pinned_plans=True),
                self._write,
                largest_batch=1,
                patience=SWEEP_TIMEOUT_S,
            )
        )
        self._reads: Batcher[tuple[OperationId, AccessFilter], Operation] = Batcher(
            "reads",
            Session(engine, pinned_plans=True, read_only=True),
            self._operations.get,
            largest_batch=largest,
            repeatable=True,
        )
        self._queries: list[Batcher[Query, Any]] = [
            Batcher(
                f"query-{number}",
                Session(engine, read_only=True),
                _query,
                largest_batch=1,
                repeatable=True,
            )
            for number in range(QUERY_BATCHERS)
        ]
        self._turn = 0

    def _write(self, session: Session, items: Sequence[Any]) -> Sequence[Any]:
        """Run creates, claims, transitions of one kind, a part of a sweep, or other work."""
        if isinstance(items[0], Work):
            return items[0].run(session, [work.item for work in items])
        if callable(items[0]):
            return [part(session) for part in items]
        if isinstance(items[0], ClaimRequest):
            return self._claims.claim(session, items)
        if isinstance(items[0], TransitionRequest):
            return self._operations.apply(session, items)
        return self._operations.insert(session, items)

    async def insert(
        self, operation_id: OperationId, new_operation: NewOperation
    ) -> TransitionResult | None:
        """See `OperationStore.insert`."""
        key = (
            (new_operation.owner, new_operation.request_id)
            if new_operation.request_id
            else operation_id
        )
        outcome: TransitionResult | None = await self._writes.submit(
            (operation_id, new_operation), key
        )
        return outcome

    async def apply(self, change: TransitionRequest) -> TransitionResult:
        """See `OperationStore.apply`."""
        for tries in range(1, TRIES + 1):
            try:
                outcome: TransitionResult = await self._writes.submit(change, change.id)
            except LostRace:
                if tries == TRIES:
                    raise LostRace(change.id, tries=TRIES) from None
                await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_S))  # noqa: S311 - a pause
            else:
                return outcome
        raise AssertionError  # the last try returns or raises

    async def delete(self, change: TransitionRequest) -> None:
        """See `OperationStore.delete`."""
        try:
            await self.apply(change)
        except OperationDeleted as deleted:
            if change.request_id is None or deleted.request_id != change.request_id:
                raise

    async def claim(self, claim: ClaimRequest) -> list[Operation]:
        """See `WorkStore.claim`."""
        found: list[Operation] = await self._claiming.submit(claim, object())
        return found

    async def pending(self, functions: Collection[str]) -> list[str]:
        """See `WorkStore.pending`."""
        asked = sorted(functions)
        queries = [
            claims.pending(asked[n : n + MOST_FUNCTIONS])
            for n in range(0, len(asked), MOST_FUNCTIONS)
        ]
        found: list[tuple[str]] = await self._run(
            lambda session: [row for query in queries for row in session.fetch(query)]
        )
        return [function for (function,) in found]

    async def sweep(self, transition: Transition, most: int) -> list[Operation]:
        """See `SweepStore.sweep`."""
        swept: list[Operation] = await self._sweep(
            lambda session: self._sweeps.sweep(session, transition, most)
        )
        return swept

    async def purge_events(self, kept: timedelta, most: int) -> int:
        """See `SweepStore.purge_events`."""
        purged: int = await self._sweep(
            lambda session: self._sweeps.purge_events(session, kept, most)
        )
        return purged

    async def due(self, transition: Transition) -> int:
        """See `SweepStore.due`."""
        return await self._count(sweeps.count(transition))

    async def overdue(self, transition: Transition, since: timedelta, most: int) -> int:
        """See `SweepStore.overdue`."""
        return await self._count(sweeps.count(transition, since=since, most=most))

    async def _count(self, query: sa.Select[Any]) -> int:
        rows = await self._run(lambda session: session.fetch(query))
        return int(rows[0][0])

    async def _sweep(self, part: Query) -> Any:
        return await self._sweeping.submit(part, object())

    async def get(self, operation_id: OperationId, access_filter: AccessFilter) -> Operation:
        """See `OperationStore.get`."""
        asked = (operation_id, access_filter)
        return await self._reads.submit(asked, object())

    async def list_keys(
        self, selection: KeySelection, after: Position | None, limit: int
    ) -> list[ApiKey]:
        """See `KeyStore.list_keys`."""
        keys: list[ApiKey] = await self._run(
            lambda session: api_keys.list_keys(session, selection, after, limit)
        )
        return keys

    async def list(
        self,
        access_filter: AccessFilter,
        selection: Selection,
        after: Position | None,
        limit: int,
        *,
        full: bool,
    ) -> list[Operation]:
        """See `OperationStore.list`."""
        query = queries.select_page(access_filter, selection, after, limit, full=full)
        rows = await self._run(lambda session: session.fetch(query))
        return [operation_from(row) for row in rows]

    async def status_snapshots(
        self, operation_ids: Sequence[OperationId]
    ) -> Sequence[StatusSnapshot]:
        """See `OperationStore.status_snapshots`."""
        query = queries.status_snapshots(operation_ids)
        rows = await self._run(lambda session: session.fetch(query))
        return [status_snapshot_from(row) for row in rows]

    async def revisions(self, ids: Sequence[OperationId]) -> Mapping[OperationId, int]:
        """See `HistoryStore.revisions`."""
        rows = [(operation_id,) for operation_id in ids]
        return dict(await self._run(lambda session: session.read(self._revisions, rows)))

    async def status_changes(
        self, operation_id: OperationId, *, after: int, before: int, limit: int
    ) -> Sequence[StatusChange]:
        """See `HistoryStore.status_changes`."""
        query = history.status_changes(operation_id, after, before, limit)
        rows = await self._run(lambda session: session.fetch(query))
        return [history.status_change_from(row) for row in rows]

    async def find_key(self, key_id: str) -> StoredKey | None:
        """See `CredentialStore.find_key`."""
        key: StoredKey | None = await self._run(lambda session: api_keys.find_key(session, key_id))
        return key

    async def add_key(
        self, key: StoredKey, create_request: CreateKeyRequest, *, creator: str
    ) -> CreateKeyResult:
        """See `KeyStore.add_key`."""
        outcome: CreateKeyResult = await self._alone(
            lambda session: api_keys.add_key(session, key, create_request, creator)
        )
        return outcome

    async def revoke_key(self, key_id: str) -> ApiKey:
        """See `KeyStore.revoke_key`."""
        key: ApiKey = await self._alone(lambda session: api_keys.revoke_key(session, key_id))
        return key

    async def record_key_use(self, key_ids: Iterable[str]) -> None:
        """See `KeyStore.record_key_use`."""
        used = sorted(key_ids)
        await self._alone(lambda session: api_keys.record_key_use(session, used))

    async def ping(self) -> None:
        """Return when the database answers; raise `StoreUnavailable` when it does not."""
        await self._run(lambda session: session.fetch(queries.PING))

    async def read(self, query: Callable[[Session], Found]) -> Found:
        """Return what `query` finds; it may run again after a lost connection."""
        found: Found = await self._run(query)
        return found

    async def work(self, work: Work, key: Hashable) -> Any:
        """Return the answer to the item of `work`, written between the transitions."""
        return await self._writes.submit(work, key)

    async def _run(self, query: Query) -> Any:
        self._turn = (self._turn + 1) % len(self._queries)
        return await self._queries[self._turn].submit(query, object())

    async def _alone(self, write: Query) -> Any:
        """Run a write that shares its statement with no other."""
        return await self._writes.submit(write, object())

    async def close(self) -> None:
        """Finish what was taken, then close every connection."""
        batchers = {self._writes, self._claiming, self._sweeping, self._reads, *self._queries}
        await asyncio.gather(*(batcher.close() for batcher in batchers))


def _kind(
    item: TransitionRequest | ClaimRequest | Query | tuple[OperationId, NewOperation] | Work,
) -> Hashable:
    if isinstance(item, Work):
        return item.run
    if callable(item):  # alone: nothing else is of its kind
        return item
    if isinstance(item, ClaimRequest):
        return Transition.CLAIM
    return item.transition if isinstance(item, TransitionRequest) else Transition.CREATE


def _query(session: Session, queries: Sequence[Query]) -> Sequence[Any]:
    return [query(session) for query in queries]
