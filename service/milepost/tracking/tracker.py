"""The use cases: what callers and workers may do with operations, one method a verb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry
from milepost.domain.errors import IdsExhausted, PermissionDenied, WebhooksNotConfigured
from milepost.domain.operation import NewOperation, OperationId, Role, new_operation_id
from milepost.domain.rates import Allowances
from milepost.domain.relations import LISTERS, READERS, access_filter
from milepost.domain.selection import Position
from milepost.domain.transitions import TABLE, TERMINAL, Transition, TransitionRequest
from milepost.tracking.pending import PendingProgress

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.domain.limits import Limits
    from milepost.domain.operation import (
        CreateRequest,
        Operation,
        OperationError,
        Payload,
        Principal,
    )
    from milepost.domain.ports import Callbacks, OperationStore
    from milepost.domain.selection import Selection
    from milepost.domain.transitions import Preconditions, TransitionResult
    from milepost.tracking.claimer import PendingWork
    from milepost.tracking.page_tokens import PageTokens
    from milepost.tracking.subscriptions import Subscriptions

EVERYBODY_ALIKE: Final = Allowances()
"""The product's defaults, for all."""
ID_TRIES: Final = 10
"""How many fresh ids are tried before the source of randomness is blamed."""
WEBHOOK_EVENTS: Final = tuple(
    sorted({rule.event for rule in TABLE.values() if rule.target in TERMINAL})
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
        subscriptions: Subscriptions,
        work: PendingWork,
        pending: PendingProgress | None = None,
        allowances: Allowances = EVERYBODY_ALIKE,
        callbacks: Callbacks | None = None,
        new_id: Callable[[], OperationId] = new_operation_id,
    ) -> None:
        """Work on `store`, within `limits`; publish to `subscriptions`, and new work to `work`.

        What is `pending` of an operation is committed before its end. What is created counts
        against the quota that its owner has by `allowances`. Without `callbacks` no webhooks are
        sent, and none are promised.
        """
        self._callbacks = callbacks
        self._store = store
        self._work = work
        self._changes = subscriptions
        self._pending = pending or PendingProgress()
        self._limits = limits
        self._allowances = allowances
        self._page_tokens = page_tokens
        self._new_id = new_id

    async def create(self, by: Principal, create_request: CreateRequest) -> TransitionResult:
        """Store a new pending operation that `by` owns, or return the one of this request_id.

        Raises:
            WebhooksNotConfigured: a callback URL was given, and no webhooks are sent.
            InvalidRequest: webhooks may not be sent to the callback URL.
            QuotaExceeded: `by` has as many active operations as it may have.
            IdsExhausted: no free id was found.
        """
        if create_request.callback_url is not None:
            await self._invited(create_request.callback_url)
        new_operation = self._new_operation(by, create_request)
        for _ in range(ID_TRIES):
            outcome = await self._store.insert(self._new_id(), new_operation)
            if outcome is not None:
                telemetry.record_transition(Transition.CREATE, outcome, by)
                self._work.publish(create_request.function)
                return outcome
        raise IdsExhausted(tries=ID_TRIES)

    async def _invited(self, callback_url: str) -> None:
        if self._callbacks is None:
            raise WebhooksNotConfigured
        await self._callbacks.check(callback_url)

    def _new_operation(self, by: Principal, create_request: CreateRequest) -> NewOperation:
        """Return what is stored of a proposal: within the limits, and with its owner."""
        return NewOperation(
            owner=by.subject,
            function=create_request.function,
            version=create_request.version,
            metadata=create_request.metadata,
            original_request_id=create_request.original_request_id,
            callback_url=create_request.callback_url,
            callback_events=create_request.callback_events or WEBHOOK_EVENTS,
            ttl=self._limits.ttl(create_request.ttl),
            retry_after=self._limits.retry_after(create_request.retry_after),
            max_attempts=self._limits.max_attempts(create_request.max_attempts),
            request_id=create_request.request_id,
            fingerprint=create_request.fingerprint,
            trace_context=telemetry.current_traceparent(),
            quota=self._allowances.of(by.subject).active,
        )

    async def get(self, by: Principal, operation_id: OperationId) -> Operation:
        """Return the operation as last committed."""
        operation = await self._store.get(operation_id, access_filter(by, READERS))
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
        shown = access_filter(by, LISTERS)
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

    async def cancel(
        self,
        by: Principal,
        operation_id: OperationId,
        preconditions: Preconditions,
        *,
        reason: str | None = None,
    ) -> TransitionResult:
        """End an active operation as cancelled; its progress and metadata are kept."""
        return await self._transition(
            by, Transition.CANCEL, operation_id, preconditions, reason=reason
        )

    async def delete(
        self, by: Principal, operation_id: OperationId, preconditions: Preconditions
    ) -> None:
        """Forget a terminal operation before its time."""
        await self._store.delete(_change(by, Transition.PURGE, operation_id, preconditions))
        self._changes.publish(operation_id)
        telemetry.record_delete(operation_id, by)

    async def start(
        self,
        by: Principal,
        operation_id: OperationId,
        preconditions: Preconditions,
        *,
        progress: float | None = None,
        worker: str | None = None,
    ) -> TransitionResult:
        """Begin the work on a pending operation."""
        worker = worker or by.subject
        return await self._transition(
            by, Transition.START, operation_id, preconditions, progress=progress, worker=worker
        )

    async def update_progress(
        self,
        by: Principal,
        operation_id: OperationId,
        preconditions: Preconditions,
        *,
        progress: float | None = None,
        message: str | None = None,
    ) -> TransitionResult:
        """Report how far the work is; a pending operation is started by it."""
        return await self._transition(
            by,
            Transition.PROGRESS,
            operation_id,
            preconditions,
            progress=progress,
            message=message,
            worker=by.subject,
        )

    async def complete(
        self,
        by: Principal,
        operation_id: OperationId,
        preconditions: Preconditions,
        *,
        result: Payload | None = None,
    ) -> TransitionResult:
        """End an operation that is being processed with its result."""
        return await self._transition(
            by, Transition.COMPLETE, operation_id, preconditions, result=result
        )

    async def fail(
        self,
        by: Principal,
        operation_id: OperationId,
        preconditions: Preconditions,
        *,
        errors: tuple[OperationError, ...],
    ) -> TransitionResult:
        """End an active operation with the errors that stopped it."""
        return await self._transition(
            by, Transition.FAIL, operation_id, preconditions, errors=errors
        )

    async def _transition(
        self,
        by: Principal,
        transition: Transition,
        operation_id: OperationId,
        preconditions: Preconditions,
        **effects: Any,
    ) -> TransitionResult:
        change = _change(by, transition, operation_id, preconditions, **effects)
        if TABLE[transition].target in TERMINAL:
            await self._pending.flush(operation_id, change.access_filter)
        outcome = await self._store.apply(change)
        self._changes.publish(operation_id)
        self._tell_of_delivery(transition, outcome)
        telemetry.record_transition(transition, outcome, by)
        return outcome

    def _tell_of_delivery(self, transition: Transition, outcome: TransitionResult) -> None:
        """Have a webhook sent at once. Progress is too frequent for it: it seldom causes one."""
        called = (
            outcome.operation.callback_url is not None and transition is not Transition.PROGRESS
        )
        if called and self._callbacks is not None:
            self._callbacks.wake()


def _change(
    by: Principal,
    transition: Transition,
    operation_id: OperationId,
    preconditions: Preconditions,
    **effects: Any,
) -> TransitionRequest:
    """Return what `by` asks for, within what the transition table lets it touch."""
    return TransitionRequest(
        transition=transition,
        id=operation_id,
        access_filter=access_filter(by, TABLE[transition].by),
        actor=by.subject,
        request_id=preconditions.request_id,
        expected_revision=preconditions.expected_revision,
        attempt=preconditions.attempt,
        **effects,
    )
