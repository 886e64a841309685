"""The one conditional UPDATE: moves of operations, many at a time, each with its exact outcome.

The primitives take a batch and run in one transaction: the moves, one statement for each kind,
then the event rows and delivery rows of those that happened. Nothing is read before it is
written. What did not move is explained by one read within the asker's scope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from milepost.domain.errors import (
    LostRace,
    MilepostError,
    OperationDeleted,
    OperationExpired,
    OperationNotFound,
    RequestIdReused,
)
from milepost.domain.lifecycle import TABLE, Change, Move, refusal
from milepost.domain.operation import Draft, Operation, OperationId, Scope
from milepost.domain.ports import Outcome
from milepost.storage import statements
from milepost.storage.engine import Prepared
from milepost.storage.records import Recorded, delivery_rows, event_row
from milepost.storage.tables import deliveries, events

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.engine import Dialect

    from milepost.storage.engine import Cursor, Session

Answer = Outcome | MilepostError

SWEEPER: Final = "milepost"
"""The actor of what no principal asked for."""
_EXPIRED: Final = TABLE[Move.EXPIRE].event


class Operations:
    """The batched primitives over the operations table. Holds statements, not data."""

    def __init__(self, dialect: Dialect) -> None:
        """Build and compile every statement once."""
        self._rows = statements.RowReader(dialect)
        self._insert = statements.insert(dialect)
        self._get = statements.get(dialect)
        self._keeping = {
            Move.PROGRESS: Prepared(
                dialect,
                statements.CONDITIONS | statements.EFFECTS[Move.PROGRESS],
                statements.keeping_progress,
            )
        }
        self._changing = {
            move: Prepared(
                dialect,
                statements.CONDITIONS | effects,
                statements.changing(move),
                singly=TABLE[move].enters is None,
            )
            for move, effects in statements.EFFECTS.items()
        }
        self._insert_events = statements.insert_rows(dialect, events, stamp="time")
        self._insert_deliveries = statements.insert_rows(
            dialect, deliveries, stamp="create_time"
        )

    def get(
        self, session: Session, asked: Sequence[tuple[OperationId, Scope]]
    ) -> Sequence[Operation | MilepostError]:
        """Return each operation asked for, or why the asker cannot have it."""
        rows = [
            (operation_id, *statements.scope_values(scope), number)
            for number, (operation_id, scope) in enumerate(asked)
        ]
        found = {
            row[-1]: self._rows.operation(row) for row in session.statement(self._get, rows)
        }
        return [
            found[number] if number in found else self._gone(session, operation_id, scope)
            for number, (operation_id, scope) in enumerate(asked)
        ]

    def apply(self, session: Session, changes: Sequence[Change]) -> Sequence[Answer]:
        """Make every move that its conditions allow, and say of the others why not.

        No two of `changes` may name the same operation. A move that other changes overtook, and
        that the table would now allow, is answered `LostRace`: it may be tried again.
        """
        moved: dict[OperationId, Operation] = {}
        changing = sorted(changes, key=lambda change: change.id)  # a common order to lock in
        if all(change.move in self._keeping for change in changes):
            # The common case, reports of progress and nothing else, is a single statement.
            for move, group in _by_move(changing):
                moved |= self._operations(
                    session.statement(self._keeping[move], _values(group))
                )
            changing = [change for change in changing if change.id not in moved]
        if changing:
            with session.transaction() as cursor:
                moved |= self._change(cursor, changing)
        return [
            Outcome(moved[change.id]) if change.id in moved else self._why_not(session, change)
            for change in changes
        ]

    def _change(self, cursor: Cursor, changes: Sequence[Change]) -> dict[OperationId, Operation]:
        moved: dict[OperationId, Operation] = {}
        recorded: list[Recorded] = []
        for move, group in _by_move(changes):
            if move in self._keeping:
                moved |= self._operations(self._keeping[move].run(cursor, _values(group)))
            rest = {change.id: change for change in group if change.id not in moved}
            rows = self._changing[move].run(cursor, _values(rest.values())) if rest else []
            moved |= self._operations(rows)
            recorded += (Recorded(rest[row[0]], moved[row[0]], row) for row in rows)
        self._record(cursor, recorded)
        return moved

    def _operations(self, rows: Iterable[Sequence[Any]]) -> dict[OperationId, Operation]:
        return {row[0]: self._rows.operation(row) for row in rows}

    def _record(self, cursor: Cursor, recorded: Sequence[Recorded]) -> None:
        """Write the event of each change of status, and the deliveries it calls for."""
        if recorded:
            self._insert_events.run(cursor, [event_row(record) for record in recorded])
        if rows := [row for record in recorded for row in delivery_rows(record)]:
            self._insert_deliveries.run(cursor, rows)

    def _why_not(self, session: Session, change: Change) -> Answer:
        rows = session.fetch(statements.why_not(change))
        if not rows:
            return self._gone(session, change.id, change.scope, change.request_id)
        *row, repeated = rows[0]
        operation = statements.operation_from(row)
        if repeated and change.request_id is not None:
            return Outcome(operation, replayed=True)
        return refusal(change, operation) or LostRace(change.id, tries=1)

    def _gone(
        self,
        session: Session,
        operation_id: OperationId,
        scope: Scope,
        request_id: str | None = None,
    ) -> MilepostError:
        """Say why there is no such operation; only its owner hears more than that.

        A foreign operation and one that never was take this same path, and so the same time.
        """
        rows = session.fetch(statements.last_event(operation_id, scope.subject, request_id))
        if not rows:
            return OperationNotFound(operation_id)
        event_type, request_id = rows[0]
        if event_type == TABLE[Move.FORGET].event:
            return OperationDeleted(operation_id, request_id=request_id)
        return OperationExpired(operation_id)

    # --- create ---

    def insert(
        self, session: Session, drafts: Sequence[tuple[OperationId, Draft]]
    ) -> Sequence[Outcome | MilepostError | None]:
        """Store each draft as a pending operation, with its event.

        A draft whose request_id the owner has used is answered with the living operation of that
        request (or `RequestIdReused`); one whose id is taken, with nothing.
        """
        with session.transaction() as cursor:
            created = self._create(cursor, drafts)
            answers: list[Outcome | MilepostError | None] = []
            for operation_id, draft in drafts:
                if operation_id in created:
                    answers.append(Outcome(created[operation_id]))
                else:
                    answers.append(self._conflict(session, cursor, operation_id, draft))
        return answers

    def _create(
        self, cursor: Cursor, drafts: Sequence[tuple[OperationId, Draft]]
    ) -> dict[OperationId, Operation]:
        rows = self._insert.run(cursor, [statements.draft_values(*draft) for draft in drafts])
        created = self._operations(rows)
        changes = {
            operation_id: Change(
                move=Move.CREATE,
                id=operation_id,
                scope=Scope(subject=draft.owner),
                actor=draft.owner,
                request_id=draft.request_id,
            )
            for operation_id, draft in drafts
        }
        self._record(cursor, [Recorded(changes[row[0]], created[row[0]], row) for row in rows])
        return created

    def _conflict(
        self, session: Session, cursor: Cursor, operation_id: OperationId, draft: Draft
    ) -> Outcome | MilepostError | None:
        """Answer a create that met an existing row: the same request, or the same id."""
        rows = session.fetch(statements.of_request(draft))
        if not rows:
            return None
        *row, fingerprint, alive = rows[0]
        if not alive:
            # It expired and was not swept yet. Its request_id is free again.
            self._forget_expired(session, cursor, OperationId(row[0]), draft.owner)
            created = self._create(cursor, [(operation_id, draft)])
            return Outcome(created[operation_id]) if created else None
        if fingerprint != draft.fingerprint:
            return RequestIdReused(str(draft.request_id))
        return Outcome(statements.operation_from(row), replayed=True)

    def _forget_expired(
        self, session: Session, cursor: Cursor, operation_id: OperationId, owner: str
    ) -> None:
        rows = session.fetch(statements.forget_expired(operation_id))
        change = Change(
            move=Move.FORGET, id=operation_id, scope=Scope(subject=owner), actor=SWEEPER
        )
        self._record(
            cursor,
            [
                Recorded(change, statements.operation_from(row), row, type=_EXPIRED)
                for row in rows
            ],
        )


def _by_move(changes: Sequence[Change]) -> list[tuple[Move, list[Change]]]:
    """Return the changes grouped by move, in the order of the table."""
    groups: dict[Move, list[Change]] = {}
    for change in changes:
        groups.setdefault(change.move, []).append(change)
    return [(move, groups[move]) for move in TABLE if move in groups]


def _values(changes: Iterable[Change]) -> list[tuple[Any, ...]]:
    return [
        (*statements.condition_values(change), *statements.effect_values(change))
        for change in changes
    ]
