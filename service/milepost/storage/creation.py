"""Creates: new operations with their events, once for each request_id, within the quota."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.domain.errors import (
    QuotaExceeded,
    RequestIdReused,
    Unavailable,
    UniqueKeyTaken,
)
from milepost.domain.transitions import TransitionResult
from milepost.storage import inserts, queries, statements
from milepost.storage.absence import explained
from milepost.storage.quotas import quota_recount
from milepost.storage.rows import RowReader, operation_from
from milepost.storage.transaction_spans import named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost.domain.operation import NewOperation, Operation, OperationId
    from milepost.storage.database import Database
    from milepost.storage.session import Session

    Result = TransitionResult | Exception | None

SWEEPER = "milepost"
"""The actor of changes that no principal requested."""


class Creation:
    """The statements of a create, without data."""

    def __init__(self, database: Database) -> None:
        """Compile every statement once."""
        self._rows = RowReader(database)
        self._insert = inserts.insert(database)
        self._recount = quota_recount(database)
        self._purge_expired = statements.purge_expired_statement(database)

    @named("INSERT", "operations")
    def insert(
        self, session: Session, new_operations: Sequence[tuple[OperationId, NewOperation]]
    ) -> Sequence[Result]:
        """Store each new operation as pending, with its event.

        If the owner has used the request_id before, the result is the live operation of that
        request, or `RequestIdReused`. If an active operation of the owner has the unique_key, it is
        that operation, or `UniqueKeyTaken`. If the owner has no free quota, it is `QuotaExceeded`.
        If the id is taken, it is None.
        """
        # Replicas insert in the order of request_ids; of two creates with one id, the first wins.
        order = sorted(
            range(len(new_operations)), key=lambda n: _insert_order(new_operations[n][1])
        )
        created = self._create(session, [new_operations[n] for n in order])
        results: dict[int, Result] = {}
        for n in order:
            operation = created.pop(new_operations[n][0], None)
            results[n] = (
                TransitionResult(operation)
                if operation is not None
                else explained(session, self._conflict, *new_operations[n])
            )
        unresolved: dict[tuple[str, int], list[int]] = {}
        for n in order:
            if results[n] is None:  # its id is taken, or the upper bound has reached the quota
                unresolved.setdefault(
                    (new_operations[n][1].owner, new_operations[n][1].quota), []
                ).append(n)
        for positions in unresolved.values():
            results.update(
                zip(
                    positions,
                    self._create_after_recount(session, [new_operations[n] for n in positions]),
                    strict=True,
                )
            )
        return [results[n] for n in range(len(new_operations))]

    def _create_after_recount(
        self, session: Session, new_operations: Sequence[tuple[OperationId, NewOperation]]
    ) -> Sequence[Result]:
        """Recount the active operations of one owner, create up to its quota, refuse the rest."""
        quota = new_operations[0][1].quota
        try:
            results, granted, created, active = session.with_retries(
                lambda: self._grant(session, new_operations)
            )
        except Exception as failure:  # noqa: BLE001 - each caller gets it
            if len(new_operations) == 1 or isinstance(failure, Unavailable):
                return [failure] * len(new_operations)
            # A create that the database refuses must not fail the others.
            return [
                result
                for new_operation in new_operations
                for result in self._create_after_recount(session, [new_operation])
            ]
        refused = QuotaExceeded(active=active + len(created), quota=quota)
        for n in (n for n, result in enumerate(results) if result is None):
            operation = created.pop(new_operations[n][0], None)
            if operation is not None:
                results[n] = TransitionResult(operation)
                continue
            # Another create of this very batch may have taken its unique_key.
            results[n] = explained(session, self._conflict, *new_operations[n])
            if results[n] is None and n not in granted:
                results[n] = refused
        return results

    def _grant(
        self, session: Session, new_operations: Sequence[tuple[OperationId, NewOperation]]
    ) -> tuple[list[Result], Sequence[int], dict[OperationId, Operation], int]:
        """Create what the quota allows, or nothing.

        Returns:
            the results of those that exist already, and None for the others; the positions of those
            that the quota allows; the created operations; the number of active ones before.
        """
        owner, quota = new_operations[0][1].owner, new_operations[0][1].quota
        with session.group():
            self._recount.lock(session, owner)
            # Under the lock: a concurrent create with the same request_id has ended.
            results = [self._conflict(session, *each) for each in new_operations]
            unresolved = [n for n, result in enumerate(results) if result is None]
            active = self._recount.run(session, owner, quota)
            granted = unresolved[: max(0, quota - active)]
            created = self._create(session, [new_operations[n] for n in granted])
        return results, granted, created, active

    def _create(
        self, session: Session, new_operations: Sequence[tuple[OperationId, NewOperation]]
    ) -> dict[OperationId, Operation]:
        if not new_operations:
            return {}
        rows = session.run(
            self._insert,
            [inserts.new_operation_values(*new_operation) for new_operation in new_operations],
        )
        return {operation.id: operation for operation in map(self._rows.operation, rows)}

    def _conflict(
        self, session: Session, operation_id: OperationId, new_operation: NewOperation
    ) -> Result:
        """Return the replayed or joined operation, or None if the conflict had another cause."""
        if new_operation.request_id is not None:
            rows = session.fetch(queries.of_request(new_operation))
            if rows:
                *row, fingerprint, unexpired = rows[0]
                earlier = operation_from(row)
                if not unexpired:  # it is not purged yet; its request_id is free again
                    return self._replace(session, earlier, operation_id, new_operation)
                if fingerprint != new_operation.fingerprint:
                    return RequestIdReused(new_operation.request_id)
                return TransitionResult(earlier, replayed=True)
        if new_operation.unique_key is None:
            return None
        return self._same_work(session, operation_id, new_operation)

    def _same_work(
        self, session: Session, operation_id: OperationId, new_operation: NewOperation
    ) -> Result:
        """Return the active operation with the same unique_key, or None."""
        rows = session.fetch(queries.of_unique_key(new_operation))
        if not rows:
            return None
        *row, unexpired = rows[0]
        active = operation_from(row)
        if not unexpired:
            return self._replace(session, active, operation_id, new_operation)
        if new_operation.refuses_to_join:
            return UniqueKeyTaken(str(new_operation.unique_key), active.id)
        return TransitionResult(active, replayed=True, joined=True)

    def _replace(
        self,
        session: Session,
        expired: Operation,
        operation_id: OperationId,
        new_operation: NewOperation,
    ) -> TransitionResult | None:
        """Create the operation in place of one that has expired."""
        session.run(self._purge_expired, [(expired.id, SWEEPER, None, None)])
        created = self._create(session, [(operation_id, new_operation)])
        return TransitionResult(created[operation_id]) if created else None


def _insert_order(new_operation: NewOperation) -> tuple[str, str]:
    return new_operation.owner, new_operation.request_id or ""
