"""The conditional UPDATE: one transition of many operations, with a result for each.

A transition, its event and its delivery are committed together. No read precedes the write: one
read within the access filter explains a transition that did not happen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.domain.errors import LostRace
from milepost.domain.transitions import TABLE, TransitionResult, refusal
from milepost.storage import statements
from milepost.storage.absence import explain_absence, explained
from milepost.storage.queries import refused_operation
from milepost.storage.rows import RowReader, operation_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost.domain.operation import Operation, OperationId
    from milepost.domain.transitions import Transition, TransitionRequest
    from milepost.storage.database import Database
    from milepost.storage.session import Session

    Result = TransitionResult | Exception


class TransitionStatements:
    """The statements of one transition, without data."""

    def __init__(self, database: Database, transition: Transition) -> None:
        """Compile them once, in the order in which they run."""
        command = "UPDATE" if TABLE[transition].target is not None else "DELETE"
        self.statement = (command, "operations")
        """See `transaction_spans.named`."""
        self._rows = RowReader(database)
        self._statements = statements.of_transition(database, transition)

    def apply(
        self, session: Session, requests: Sequence[TransitionRequest]
    ) -> Sequence[TransitionResult | Exception]:
        """Transition many operations, and explain each transition that did not happen.

        No two of `requests` name the same operation. The result is `LostRace` if a concurrent
        change came first and the table would allow the transition now: the caller may retry.
        """
        # Sorted, so that statements that lock several rows lock them in one order.
        pending = {request.id: request for request in sorted(requests, key=lambda r: r.id)}
        results: dict[OperationId, Result] = {}
        for transition, statement in self._statements:
            if not pending:
                break
            try:
                rows = session.run(
                    statement, [statements.values(request) for request in pending.values()]
                )
            except Exception as error:
                if not results:
                    raise
                session.failed(error)
                # Finished transitions must not run again: the others run without them.
                for request in pending.values():
                    results[request.id] = explained(session, self._apply_alone, request)
                break
            for operation in map(self._rows.operation, rows):
                results[operation.id] = TransitionResult(operation, transition=transition)
                del pending[operation.id]
        return [
            results[request.id] if request.id in results else explained(session, _explain, request)
            for request in requests
        ]

    def _apply_alone(self, session: Session, request: TransitionRequest) -> Result:
        return self.apply(session, [request])[0]


def _explain(session: Session, request: TransitionRequest) -> Result:
    """Return why a transition did not happen, or its replayed result."""
    rows = session.fetch(refused_operation(request))
    if not rows:
        return explain_absence(session, request.id, request.access_filter, request.request_id)
    *row, repeated = rows[0]
    operation: Operation = operation_from(row)
    if repeated and request.request_id is not None:
        return TransitionResult(operation, replayed=True)
    return refusal(request, operation) or LostRace(request.id, tries=1)
