"""The conditional UPDATE: one transition of many operations, each with its exact result.

A transition, its events and its deliveries happen together. Nothing is read before it is written:
a transition that did not happen is explained by one read within the access filter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from milepost.domain.errors import LostRace
from milepost.domain.transitions import TransitionResult, refusal
from milepost.storage import statements
from milepost.storage.absence import explain_absence, explained
from milepost.storage.queries import why_not
from milepost.storage.rows import RowReader, operation_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost.domain.operation import Operation, OperationId
    from milepost.domain.transitions import Transition, TransitionRequest
    from milepost.storage.database import Database
    from milepost.storage.session import Session

    Answer = TransitionResult | Exception


class TransitionStatements:
    """The statements of one transition. Holds statements, not data."""

    def __init__(self, database: Database, transition: Transition) -> None:
        """Compile them once: first the one that keeps the status, if there is one."""
        self._rows = RowReader(database)
        self._statements = statements.of_transition(database, transition)

    def apply(
        self, session: Session, requests: Sequence[TransitionRequest]
    ) -> Sequence[TransitionResult | Exception]:
        """Make the transition of many operations, and explain each that did not happen.

        No two of `requests` name the same operation. A transition that other changes overtook, and
        that the table would now allow, is answered `LostRace`: it may be tried again.
        """
        # Sorted: statements that lock several rows lock them in one order.
        waiting = {request.id: request for request in sorted(requests, key=lambda r: r.id)}
        answers: dict[OperationId, Answer] = {}
        for statement in self._statements:
            if not waiting:
                break
            try:
                rows = session.run(statement, [_values(each) for each in waiting.values()])
            except Exception as error:
                if not answers:
                    raise
                session.failed(error)
                # What has happened must not run again: the others are tried without it.
                for request in waiting.values():
                    answers[request.id] = explained(session, self._apply_alone, request)
                break
            for operation in map(self._rows.operation, rows):
                answers[operation.id] = TransitionResult(operation)
                del waiting[operation.id]
        return [
            answers[request.id] if request.id in answers else explained(session, _why_not, request)
            for request in requests
        ]

    def _apply_alone(self, session: Session, request: TransitionRequest) -> Answer:
        return self.apply(session, [request])[0]


def _why_not(session: Session, request: TransitionRequest) -> Answer:
    """Return why a transition did not happen, or what it led to when it happened before."""
    rows = session.fetch(why_not(request))
    if not rows:
        return explain_absence(session, request.id, request.access_filter, request.request_id)
    *row, repeated = rows[0]
    operation: Operation = operation_from(row)
    if repeated and request.request_id is not None:
        return TransitionResult(operation, replayed=True)
    return refusal(request, operation) or LostRace(request.id, tries=1)


def _values(request: TransitionRequest) -> tuple[Any, ...]:
    return (*statements.condition_values(request), *statements.effect_values(request))
