"""Claims: pending operations are leased to workers, each to one, and owners take turns.

Claims of the same functions that wait at the same time are one statement. It divides what it picks
among them, in the order in which they came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from milepost.storage.answer_size import bytes_of
from milepost.storage.batchers import MAX_CLAIMS
from milepost.storage.claim_statement import claim_statement
from milepost.storage.dialects import pairs_json
from milepost.storage.pending_work import pending_statement
from milepost.storage.rows import RowReader
from milepost.storage.transaction_spans import named

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from milepost.domain.claim import ClaimRequest
    from milepost.domain.operation import Operation
    from milepost.storage.database import Database
    from milepost.storage.session import Session

MAX_PAIRS: Final = 32
"""Pairs of a function and an owner that one statement visits for one claim, or for several."""
MAX_STATEMENTS: Final = 8
"""Statements that run for one claim."""
MAX_STATEMENT_BYTES: Final = 12_000_000
"""Bytes of the answers of one statement: drivers hold a result several times."""
MAX_LAST_OWNERS: Final = 10_000
"""Functions whose last served owner is remembered."""


class Claims:
    """The claims of one store, with the last served owners. One thread uses it at a time."""

    def __init__(self, database: Database) -> None:
        """Build and compile the statements once."""
        self._rows = RowReader(database)
        self._statement = claim_statement(database)
        self._pending = pending_statement(database)
        # Without arrays, a statement is for one claim.
        self._max_claims = 1 if database.has_one_writer else MAX_CLAIMS
        self._last_owners: dict[str, str] = {}
        self._claims = 0

    @named("UPDATE", "operations")
    def claim(
        self, session: Session, requests: Sequence[ClaimRequest]
    ) -> Sequence[list[Operation] | Exception]:
        """Return the claimed operations of each request; a failure does not undo other claims."""
        answers = [_Answer(request) for request in requests]
        try:
            for functions, group in self._groups(session, answers).items():
                self._claim_together(session, functions, group)
        except Exception as error:
            if not any(answer.operations for answer in answers):
                raise  # nothing has changed: they may run again
            failure = session.failed(error)
            return [answer.operations or failure for answer in answers]
        return [answer.operations for answer in answers]

    def _groups(
        self, session: Session, answers: Sequence[_Answer]
    ) -> Mapping[tuple[str, ...], list[_Answer]]:
        """Return the claims by their functions, of claims that differ by those that have work."""
        groups = _grouped(answers)
        if len(groups) == 1:
            return groups
        requested = sorted({function for functions in groups for function in functions})
        pairs = pairs_json((function, "") for function in requested)
        with_work = {function for (function,) in session.read(self._pending, [(pairs,)])}
        return _grouped(answers, with_work)

    def _claim_together(
        self, session: Session, functions: tuple[str, ...], waiting: list[_Answer]
    ) -> None:
        """Fill the answers of claims of the same functions, until nothing is left."""
        while waiting:
            together, waiting = waiting[: self._max_claims], waiting[self._max_claims :]
            if not self._run(session, functions, together):
                return
            waiting = [answer for answer in together if not answer.is_full] + waiting

    def _run(
        self, session: Session, functions: tuple[str, ...], answers: Sequence[_Answer]
    ) -> list[Operation]:
        """Run the statement once, and add what it has claimed to the answers."""
        claimed: list[Operation] = []
        inputs = _inputs(self._in_turn(functions), answers)
        for *row, number in session.run(self._statement, inputs):
            operation = self._rows.operation(row)
            answers[number].operations.append(operation)
            claimed.append(operation)
        for answer in answers:
            answer.statements += 1
        self._note_owners(claimed)
        return claimed

    def _in_turn(self, functions: tuple[str, ...]) -> str:
        """Return the functions, each with its last served owner, from another one at each call."""
        self._claims += 1
        first = self._claims % len(functions)
        in_turn = (*functions[first:], *functions[:first])
        return pairs_json((function, self._last_owners.get(function, "")) for function in in_turn)

    def _note_owners(self, claimed: Iterable[Operation]) -> None:
        """Note the last served owner of each function; owners come in descending order.

        Their order is that of the database, and after the last owner comes the first. If Python
        orders some differently, one may be served twice in one turn, but no owner is skipped.
        """
        served: dict[str, tuple[bool, str]] = {}
        for operation in claimed:
            function, owner = operation.function, operation.owner
            turn = (owner < self._last_owners.get(function, ""), owner)
            served[function] = min(turn, served.get(function, turn))
        if len(self._last_owners) >= MAX_LAST_OWNERS:
            self._last_owners.clear()
        self._last_owners.update({function: owner for function, (_, owner) in served.items()})


class _Answer:
    """The operations of one claim, and the room that is left for more."""

    def __init__(self, request: ClaimRequest) -> None:
        self.request = request
        self.operations: list[Operation] = []
        self.statements = 0

    @property
    def missing(self) -> int:
        """The number of operations that may be added."""
        return self.request.max_operations - len(self.operations)

    @property
    def bytes_left(self) -> int:
        """The bytes that may be added."""
        return self.request.max_bytes - sum(map(bytes_of, self.operations))

    @property
    def is_full(self) -> bool:
        """True if no operation is missing, the next one may not fit, or enough was tried."""
        return (
            self.missing <= 0
            or self.statements >= MAX_STATEMENTS
            or self.bytes_left < self.request.max_bytes // 2
        )


def _grouped(
    answers: Iterable[_Answer], with_work: Container[str] | None = None
) -> dict[tuple[str, ...], list[_Answer]]:
    """Return the claims by their functions, or by those of them that have work."""
    groups: dict[tuple[str, ...], list[_Answer]] = {}
    for answer in answers:
        functions = sorted(answer.request.functions)
        if with_work is not None:
            functions = [function for function in functions if function in with_work]
        if functions:
            groups.setdefault(tuple(functions), []).append(answer)
    return groups


def _inputs(functions: str, answers: Sequence[_Answer]) -> Sequence[tuple[Any, ...]]:
    """Return the input rows of one statement for these claims."""
    max_pairs = min(sum(answer.missing for answer in answers), MAX_PAIRS)
    max_bytes = MAX_STATEMENT_BYTES // len(answers)
    rows: list[tuple[Any, ...]] = []
    last = 0
    for number, answer in enumerate(answers):
        request, first = answer.request, last + 1
        last += answer.missing
        rows.append(
            (
                *(request.actor, None, None, number, functions if number == 0 else None),
                *(max_pairs, first, last),
                *(0 if answer.operations else 1, min(answer.bytes_left, max_bytes)),
                *(request.worker, request.lease),
            )
        )
    return rows
