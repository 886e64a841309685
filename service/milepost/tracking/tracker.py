"""The use cases: what callers and workers may do with operations, one method a verb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry
from milepost.domain.errors import IdsExhausted, PermissionDenied, WebhooksNotConfigured
from milepost.domain.lifecycle import TABLE, TERMINAL, Change, Move
from milepost.domain.operation import Draft, OperationId, Role, new_operation_id
from milepost.domain.policy import LISTERS, VIEWERS, scope
from milepost.domain.ports import Position
from milepost.domain.rates import Allowances
from milepost.tracking.pending import PendingProgress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from milepost.domain.lifecycle import Guards
    from milepost.domain.limits import Limits
    from milepost.domain.operation import Operation, OperationError, Payload, Principal, Proposal
    from milepost.domain.ports import Callbacks, OperationStore, Outcome, Selection
    from milepost.tracking.changes import Changes
    from milepost.tracking.claiming import PendingWork
    from milepost.tracking.paging import PageTokens

EVERYBODY_ALIKE: Final = Allowances()
"""The product's defaults, for all."""
ID_TRIES: Final = 10
"""How many fresh ids are tried before the source of randomness is blamed."""
WEBHOOK_EVENTS: Final = tuple(
    sorted({rule.event for rule in TABLE.values() if rule.enters in TERMINAL})
)
"""The events a webhook is sent for unless the caller chooses others."""


class Tracker:
    """Keeps track of operations. Every method raises the errors of `OperationStore` too."""

    def __init__(
        self,
        store: OperationStore,
        *,
        limits: Limits,
        page_tokens: PageTokens,
        changes: Changes,
        work: PendingWork,
        pending: PendingProgress | None = None,
        allowances: Allowances = EVERYBODY_ALIKE,
        callbacks: Callbacks | None = None,
        new_id: Callable[[], OperationId] = new_operation_id,
    ) -> None:
        """Work on `store`; clamp to `limits`; tell `changes` of every move, `work` of new work.

        What is `pending` of an operation is committed before its end. What is created counts
        against the quota that its owner has by `allowances`. Without `callbacks` no webhooks are
        sent, and none are promised.
        """
        self._callbacks = callbacks
        self._store = store
        self._work = work
        self._changes = changes
        self._pending = pending or PendingProgress()
        self._limits = limits
        self._allowances = allowances
        self._page_tokens = page_tokens
        self._new_id = new_id

    async def create(self, by: Principal, proposal: Proposal) -> Outcome:
        """Store a new pending operation that `by` owns, or return the one of this request_id.

        Raises:
            WebhooksNotConfigured: a callback URL was given, and no webhooks are sent.
            InvalidRequest: webhooks may not be sent to the callback URL.
            QuotaExceeded: `by` has as many active operations as it may have.
            IdsExhausted: no free id was found.
        """
        if proposal.callback_url is not None:
            await self._invited(proposal.callback_url)
        draft = self._draft(by, proposal)
        for _ in range(ID_TRIES):
            outcome = await self._store.insert(self._new_id(), draft)
            if outcome is not None:
                telemetry.record_move(Move.CREATE, outcome, by)
                self._work.publish(proposal.function)
                return outcome
        raise IdsExhausted(tries=ID_TRIES)

    async def _invited(self, callback_url: str) -> None:
        if self._callbacks is None:
            raise WebhooksNotConfigured
        await self._callbacks.check(callback_url)

    def _draft(self, by: Principal, proposal: Proposal) -> Draft:
        """Return what is stored of a proposal: within the limits, and with its owner."""
        return Draft(
            owner=by.subject,
            function=proposal.function,
            version=proposal.version,
            metadata=proposal.metadata,
            original_request_id=proposal.original_request_id,
            callback_url=proposal.callback_url,
            callback_events=proposal.callback_events or WEBHOOK_EVENTS,
            ttl=self._limits.ttl(proposal.ttl),
            retry_after=self._limits.retry_after(proposal.retry_after),
            max_attempts=self._limits.max_attempts(proposal.max_attempts),
            request_id=proposal.request_id,
            fingerprint=proposal.fingerprint,
            trace_context=telemetry.current_traceparent(),
            quota=self._allowances.of(by.subject).active,
        )

    async def get(self, by: Principal, operation_id: OperationId) -> Operation:
        """Return the operation as last committed."""
        operation = await self._store.get(operation_id, scope(by, VIEWERS))
        telemetry.join_trace(operation.id, operation.trace_context)
        return operation

    async def list(
        self,
        by: Principal,
        selection: Selection,
        *,
        page_size: int = 0,
        page_token: str = "",
        full: bool = False,
    ) -> tuple[list[Operation], str]:
        """Return one page, newest first, and the token of the next one; empty at the end.

        Raises:
            PermissionDenied: somebody else's were asked for, and `by` is no admin.
        """
        shown = scope(by, LISTERS)
        if selection.owner not in (None, by.subject) and not shown.everything:
            raise PermissionDenied(role=Role.ADMIN)
        after = self._after(page_token, by, selection)
        limit = page_size or self._limits.page_size_default
        # One more than asked for tells whether there is a next page, without counting.
        found = await self._store.list(shown, selection, after, limit + 1, full=full)
        page = found[:limit]
        if len(found) <= limit:
            return page, ""
        position = Position(create_time=page[-1].create_time, id=page[-1].id)
        return page, self._page_tokens.issue(position, subject=by.subject, selection=selection)

    def _after(self, page_token: str, by: Principal, selection: Selection) -> Position | None:
        if not page_token:
            return None
        return self._page_tokens.read(page_token, subject=by.subject, selection=selection)

    def cancel(
        self, by: Principal, operation_id: OperationId, guards: Guards, *, reason: str | None = None
    ) -> Awaitable[Outcome]:
        """End an active operation as cancelled; its progress and metadata are kept."""
        return self._move(by, Move.CANCEL, operation_id, guards, reason=reason)

    async def delete(self, by: Principal, operation_id: OperationId, guards: Guards) -> None:
        """Forget a terminal operation before its time."""
        await self._store.forget(_change(by, Move.FORGET, operation_id, guards))
        self._changes.publish(operation_id)
        telemetry.record_forget(operation_id, by)

    def start(
        self,
        by: Principal,
        operation_id: OperationId,
        guards: Guards,
        *,
        progress: float | None = None,
        worker: str | None = None,
    ) -> Awaitable[Outcome]:
        """Begin the work on a pending operation."""
        worker = worker or by.subject
        return self._move(by, Move.START, operation_id, guards, progress=progress, worker=worker)

    def update_progress(
        self,
        by: Principal,
        operation_id: OperationId,
        guards: Guards,
        *,
        progress: float | None = None,
        message: str | None = None,
    ) -> Awaitable[Outcome]:
        """Report how far the work is; a pending operation is started by it."""
        return self._move(
            by,
            Move.PROGRESS,
            operation_id,
            guards,
            progress=progress,
            message=message,
            worker=by.subject,
        )

    def complete(
        self,
        by: Principal,
        operation_id: OperationId,
        guards: Guards,
        *,
        result: Payload | None = None,
    ) -> Awaitable[Outcome]:
        """End an operation that is being processed with its result."""
        return self._move(by, Move.COMPLETE, operation_id, guards, result=result)

    def fail(
        self,
        by: Principal,
        operation_id: OperationId,
        guards: Guards,
        *,
        errors: tuple[OperationError, ...],
    ) -> Awaitable[Outcome]:
        """End an active operation with the errors that stopped it."""
        return self._move(by, Move.FAIL, operation_id, guards, errors=errors)

    async def _move(
        self, by: Principal, move: Move, operation_id: OperationId, guards: Guards, **effects: Any
    ) -> Outcome:
        change = _change(by, move, operation_id, guards, **effects)
        if TABLE[move].enters in TERMINAL:
            await self._pending.flush(operation_id, change.scope)
        outcome = await self._store.apply(change)
        self._changes.publish(operation_id)
        self._tell_of_delivery(move, outcome)
        telemetry.record_move(move, outcome, by)
        return outcome

    def _tell_of_delivery(self, move: Move, outcome: Outcome) -> None:
        """Have a webhook sent at once. Progress is too frequent for it: it seldom causes one."""
        called = outcome.operation.callback_url is not None and move is not Move.PROGRESS
        if called and self._callbacks is not None:
            self._callbacks.wake()


def _change(
    by: Principal, move: Move, operation_id: OperationId, guards: Guards, **effects: Any
) -> Change:
    """Return what `by` asks for, within what the table of moves lets it touch."""
    return Change(
        move=move,
        id=operation_id,
        scope=scope(by, TABLE[move].by),
        actor=by.subject,
        request_id=guards.request_id,
        expected_revision=guards.expected_revision,
        attempt=guards.attempt,
        **effects,
    )
