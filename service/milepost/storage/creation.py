"""Creates: operations are stored with their events, once for each request_id, within the quota."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.domain.errors import QuotaExceeded, RequestIdReused, Unavailable
from milepost.domain.transitions import TransitionResult
from milepost.storage import queries, statements
from milepost.storage.absence import explained
from milepost.storage.quotas import QuotaRecount
from milepost.storage.rows import RowReader, operation_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost.domain.operation import NewOperation, Operation, OperationId
    from milepost.storage.database import Database
    from milepost.storage.session import Session

    Answer = TransitionResult | Exception | None

SWEEPER = "milepost"
"""The actor of what no principal asked for."""


class Creation:
    """The statements of a create. Holds statements, not data."""

    def __init__(self, database: Database) -> None:
        """Compile every statement once."""
        self._rows = RowReader(database)
        self._insert = statements.insert(database)
        self._recount = QuotaRecount(database)
        self._purge_expired = statements.purge_expired_statement(database)

    def insert(
        self, session: Session, new_operations: Sequence[tuple[OperationId, NewOperation]]
    ) -> Sequence[Answer]:
        """Store each new operation as pending, with its event.

        One whose request_id the owner has used is answered with the living operation of that
        request (or `RequestIdReused`); one whose owner has no quota left, with `QuotaExceeded`;
        one whose id is taken, with None.
        """
        # All stores claim request_ids in one order. Of two creates with one id the first gets it.
        order = sorted(range(len(new_operations)), key=lambda n: _claim_order(new_operations[n][1]))
        created = self._create(session, [new_operations[n] for n in order])
        answers: dict[int, Answer] = {}
        for n in order:
            operation = created.pop(new_operations[n][0], None)
            answers[n] = (
                TransitionResult(operation)
                if operation is not None
                else explained(session, self._conflict, *new_operations[n])
            )
        lacking: dict[tuple[str, int], list[int]] = {}
        for n in order:
            if answers[n] is None:  # its id is taken, or there is no quota left, as far as known
                lacking.setdefault(
                    (new_operations[n][1].owner, new_operations[n][1].quota), []
                ).append(n)
        for places in lacking.values():
            answers.update(
                zip(
                    places,
                    self._recounted(session, [new_operations[n] for n in places]),
                    strict=True,
                )
            )
        return [answers[n] for n in range(len(new_operations))]

    def _recounted(
        self, session: Session, new_operations: Sequence[tuple[OperationId, NewOperation]]
    ) -> Sequence[Answer]:
        """Create what one owner has quota for, which is counted; refuse the rest."""
        owner, quota = new_operations[0][1].owner, new_operations[0][1].quota
        try:
            with session.whole():
                self._recount.lock(session, owner)
                # Whoever created with the same request_id meanwhile has come to an end.
                answers = [
                    self._conflict(session, *new_operation) for new_operation in new_operations
                ]
                lacking = [n for n, answer in enumerate(answers) if answer is None]
                active = self._recount.run(session, owner, quota)
                granted = lacking[: max(0, quota - active)]
                created = self._create(session, [new_operations[n] for n in granted])
        except Exception as error:  # noqa: BLE001 - raised for the callers that it concerns
            failure = session.failed(error)
            if len(new_operations) == 1 or isinstance(failure, Unavailable):
                return [failure] * len(new_operations)
            # One create that the database refuses must not fail its neighbours.
            return [
                answer
                for new_operation in new_operations
                for answer in self._recounted(session, [new_operation])
            ]
        refused = QuotaExceeded(active=active + len(created), quota=quota)
        for n in lacking:
            operation = created.pop(new_operations[n][0], None)
            if n not in granted:
                answers[n] = refused
            elif operation is not None:
                answers[n] = TransitionResult(operation)
        return answers

    def _create(
        self, session: Session, new_operations: Sequence[tuple[OperationId, NewOperation]]
    ) -> dict[OperationId, Operation]:
        if not new_operations:
            return {}
        rows = session.run(
            self._insert,
            [statements.new_operation_values(*new_operation) for new_operation in new_operations],
        )
        return {operation.id: operation for operation in map(self._rows.operation, rows)}

    def _conflict(
        self, session: Session, operation_id: OperationId, new_operation: NewOperation
    ) -> Answer:
        """Return the replayed operation, or None if the conflict had another cause."""
        if new_operation.request_id is None:
            return None
        rows = session.fetch(queries.of_request(new_operation))
        if not rows:
            return None
        *row, fingerprint, alive = rows[0]
        earlier = operation_from(row)
        if not alive:
            # It expired and was not swept yet. Its request_id is free again.
            session.run(self._purge_expired, [(earlier.id, SWEEPER, None, None)])
            created = self._create(session, [(operation_id, new_operation)])
            return TransitionResult(created[operation_id]) if created else None
        if fingerprint != new_operation.fingerprint:
            return RequestIdReused(new_operation.request_id)
        return TransitionResult(earlier, replayed=True)


def _claim_order(new_operation: NewOperation) -> tuple[str, str]:
    return new_operation.owner, new_operation.request_id or ""
