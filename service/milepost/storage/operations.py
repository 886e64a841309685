"""The one conditional UPDATE: moves of operations, many at a time, each with its exact outcome.

The primitives take a batch of one kind: the transitions, their events and their deliveries happen
together, whatever happens to other batches. Nothing is read before it is written. What did not
move is explained by one read within the asker's scope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from milepost.domain.errors import (
    LostRace,
    MilepostError,
    OperationDeleted,
    OperationExpired,
    OperationNotFound,
    QuotaExceeded,
    RequestIdReused,
    Unavailable,
)
from milepost.domain.transitions import (
    TABLE,
    Transition,
    TransitionRequest,
    TransitionResult,
    refusal,
)
from milepost.storage import queries, statements
from milepost.storage.predicates import access_filter_values
from milepost.storage.quotas import QuotaRecount
from milepost.storage.rows import RowReader, operation_from

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.engine import Dialect

    from milepost.domain.operation import AccessFilter, NewOperation, Operation, OperationId
    from milepost.storage.engine import Session

Answer = TransitionResult | Exception

SWEEPER: Final = "milepost"
"""The actor of what no principal asked for."""


class Operations:
    """The batched primitives over the operations table. Holds statements, not data."""

    def __init__(self, dialect: Dialect) -> None:
        """Build and compile every statement once."""
        self._rows = RowReader(dialect)
        self._get = queries.get(dialect)
        self._insert = statements.insert(dialect)
        self._recount = QuotaRecount(dialect)
        self._purge_expired = statements.purge_expired_statement(dialect)
        self._keeping = {Transition.PROGRESS: statements.keeping_progress(dialect)}
        self._changing = {
            transition: statements.changing(dialect, transition)
            for transition in statements.EFFECTS
        }

    def get(
        self, session: Session, asked: Sequence[tuple[OperationId, AccessFilter]]
    ) -> Sequence[Operation | MilepostError]:
        """Return each operation asked for, or why the asker cannot have it.

        What many ask for at once, such as all who watch one operation, is read once.
        """
        wanted = list(dict.fromkeys(asked))
        rows = [
            (operation_id, *access_filter_values(access_filter), number)
            for number, (operation_id, access_filter) in enumerate(wanted)
        ]
        found = {
            wanted[row[-1]]: self._rows.operation(row) for row in session.read(self._get, rows)
        }
        return [found.get(each) or self._gone(session, *each) for each in asked]

    def apply(
        self, session: Session, changes: Sequence[TransitionRequest]
    ) -> Sequence[Answer | None]:
        """Make one transition of many operations, and say of those that did not move why not.

        All of `changes` are the same move, and no two name the same operation. A transition that
        other changes overtook, and that the table would now allow, is answered `LostRace`: it may
        be tried again.
        """
        transition = changes[0].transition
        waiting = {change.id: change for change in sorted(changes, key=lambda c: c.id)}
        moved: dict[OperationId, Operation] = {}
        # Sorted: statements that lock several rows lock them in one order.
        alone: dict[OperationId, Answer | None] = {}
        for statement in (self._keeping.get(transition), self._changing[transition]):
            if statement is None or not waiting:
                continue
            try:
                rows = session.run(statement, [_values(change) for change in waiting.values()])
            except Exception as error:
                if not moved:
                    raise
                session.failed(error)
                # What has moved must not run again: the others are tried without it.
                for change in waiting.values():
                    alone[change.id] = self._explained(session, self._alone, change)
                break
            for row in rows:
                moved[row[0]] = self._rows.operation(row)
                del waiting[row[0]]
        return [
            TransitionResult(moved[change.id])
            if change.id in moved
            else alone.get(change.id) or self._explained(session, self._why_not, change)
            for change in changes
        ]

    def _alone(self, session: Session, change: TransitionRequest) -> Answer | None:
        return self.apply(session, [change])[0]

    def _explained(
        self, session: Session, explain: Callable[..., Answer | None], *asked: Any
    ) -> Answer | None:
        """Return the explanation, or why there is none: what has moved stays moved."""
        try:
            return explain(session, *asked)
        except Exception as error:  # noqa: BLE001 - told to the one caller that it concerns
            return session.failed(error)

    def _why_not(self, session: Session, change: TransitionRequest) -> Answer:
        rows = session.fetch(queries.why_not(change))
        if not rows:
            return self._gone(session, change.id, change.access_filter, change.request_id)
        *row, repeated = rows[0]
        operation = operation_from(row)
        if repeated and change.request_id is not None:
            return TransitionResult(operation, replayed=True)
        return refusal(change, operation) or LostRace(change.id, tries=1)

    def _gone(
        self,
        session: Session,
        operation_id: OperationId,
        access_filter: AccessFilter,
        request_id: str | None = None,
    ) -> MilepostError:
        """Say why there is no such operation; only its owner hears more than that.

        A foreign operation and one that never was take this same path, and so the same time.
        """
        rows = session.fetch(queries.last_event(operation_id, access_filter.subject, request_id))
        if not rows:
            return OperationNotFound(operation_id)
        event_type, deleted_by_call, actor = rows[0]
        if event_type == TABLE[Transition.PURGE].event:
            repeatable = deleted_by_call if actor == access_filter.subject else None
            return OperationDeleted(operation_id, request_id=repeatable)
        return OperationExpired(operation_id)

    # --- create ---

    def insert(
        self, session: Session, new_operations: Sequence[tuple[OperationId, NewOperation]]
    ) -> Sequence[Answer | None]:
        """Store each draft as a pending operation, with its event.

        A draft whose request_id the owner has used is answered with the living operation of that
        request (or `RequestIdReused`); one whose owner has no quota left, with `QuotaExceeded`;
        one whose id is taken, with nothing.
        """
        # All stores claim request_ids in one order. Of two drafts with one id the first gets it.
        order = sorted(range(len(new_operations)), key=lambda n: _claim_order(new_operations[n][1]))
        created = self._create(session, [new_operations[n] for n in order])
        answers: dict[int, Answer | None] = {}
        for n in order:
            operation = created.pop(new_operations[n][0], None)
            answers[n] = (
                TransitionResult(operation)
                if operation is not None
                else self._explained(session, self._conflict, *new_operations[n])
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
    ) -> Sequence[Answer | None]:
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
        except Exception as error:  # noqa: BLE001 - told to those whom it concerns
            failure = session.failed(error)
            if len(new_operations) == 1 or isinstance(failure, Unavailable):
                return [failure] * len(new_operations)
            # One draft that the database refuses must not fail its neighbours.
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
        return {row[0]: self._rows.operation(row) for row in rows}

    def _conflict(
        self, session: Session, operation_id: OperationId, new_operation: NewOperation
    ) -> Answer | None:
        """Answer a create that met the same request; with nothing if that was not the cause."""
        if new_operation.request_id is None:
            return None
        rows = session.fetch(queries.of_request(new_operation))
        if not rows:
            return None
        *row, fingerprint, alive = rows[0]
        if not alive:
            # It expired and was not swept yet. Its request_id is free again.
            session.run(self._purge_expired, [(row[0], SWEEPER, None, None)])
            created = self._create(session, [(operation_id, new_operation)])
            return TransitionResult(created[operation_id]) if created else None
        if fingerprint != new_operation.fingerprint:
            return RequestIdReused(new_operation.request_id)
        return TransitionResult(operation_from(row), replayed=True)


def _claim_order(new_operation: NewOperation) -> tuple[str, str]:
    return new_operation.owner, new_operation.request_id or ""


def _values(change: TransitionRequest) -> tuple[Any, ...]:
    return (*statements.condition_values(change), *statements.effect_values(change))
