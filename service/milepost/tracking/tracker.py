"""The use cases of callers and workers: one method for each verb of the protos."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from milepost import telemetry
from milepost.domain.errors import IdsExhausted, PermissionDenied, WebhooksNotConfigured
from milepost.domain.operation import NewOperation, OperationId, Role, new_operation_id
from milepost.domain.rates import Allowances
from milepost.domain.relations import LISTERS, READERS, access_filter
from milepost.domain.selection import Position
from milepost.domain.transitions import ENDING, TABLE, TERMINAL, Transition
from milepost.tracking.committer import transition_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from milepost.domain.limits import Limits
    from milepost.domain.operation import (
        AccessFilter,
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
    from milepost.tracking.committer import Committer
    from milepost.tracking.page_tokens import PageTokens

DEFAULT_ALLOWANCES: Final = Allowances()
"""The same default quota for every owner."""
MAX_ID_TRIES: Final = 10
"""Random ids that are tried for one operation. More collisions mean a broken random generator."""
WEBHOOK_EVENTS: Final = tuple(
    sorted({rule.event for rule in TABLE.values() if rule.target in TERMINAL})
)
"""The events for which a webhook is sent, unless the caller chooses others."""


class PendingProgress(Protocol):
    """The progress updates of this replica that are not committed yet."""

    async def flush(self, operation_id: OperationId, access_filter: AccessFilter) -> None:
        """Return when the pending updates of an operation are committed or refused.

        Updates of an operation that the filter does not cover stay pending.

        Raises:
            StoreUnavailable, Overloaded: neither is possible now.
        """


class Tracker:
    """Creates, reads and changes operations.

    Every method raises the errors of `OperationStore` too.
    """

    def __init__(
        self,
        store: OperationStore,
        committer: Committer,
        *,
        limits: Limits,
        page_tokens: PageTokens,
        work: PendingWork,
        pending_progress: PendingProgress | None = None,
        allowances: Allowances = DEFAULT_ALLOWANCES,
        callbacks: Callbacks | None = None,
        new_id: Callable[[], OperationId] = new_operation_id,
    ) -> None:
        """Serve the operations of `store`.

        Args:
            store: creates and reads operations.
            committer: changes operations.
            limits: clamp the values of new operations and the size of pages.
            page_tokens: continue lists.
            work: is notified of new operations.
            pending_progress: is committed before the attempt ends; None for no streams.
            allowances: the quota of each owner.
            callbacks: checks callback URLs, creates signing secrets and wakes the dispatcher; None
                refuses callback URLs.
            new_id: returns a random id.
        """
        self._store = store
        self._committer = committer
        self._limits = limits
        self._page_tokens = page_tokens
        self._work = work
        self._pending_progress = pending_progress
        self._allowances = allowances
        self._callbacks = callbacks
        self._new_id = new_id

    async def create(self, by: Principal, create_request: CreateRequest) -> TransitionResult:
        """Create a pending operation of `by`, or return the one that has this request_id.

        Raises:
            WebhooksNotConfigured: there is a callback URL, but the service sends no webhooks.
            InvalidRequest: the callback URL is refused.
            QuotaExceeded: `by` has as many active operations as its quota allows.
            IdsExhausted: every random id was taken.
        """
        if create_request.callback_url is not None:
            await self._prepare_webhooks(by.subject, create_request.callback_url)
        new_operation = self._new_operation(by, create_request)
        announce = functools.partial(self._announce_create, by, time.time_ns())
        for _ in range(MAX_ID_TRIES):
            result = await self._store.insert(self._new_id(), new_operation, announce)
            if result is not None:
                announce(result)
                return result
        raise IdsExhausted(tries=MAX_ID_TRIES)

    def _announce_create(self, by: Principal, begun: int, result: TransitionResult | None) -> None:
        """Record the create, and notify a waiting claim; None if the id was taken."""
        if result is not None:
            telemetry.record_transition(Transition.CREATE, result, by, begun=begun)
            if not result.replayed:
                self._work.add(result.operation)

    async def _prepare_webhooks(self, owner: str, callback_url: str) -> None:
        if self._callbacks is None:
            raise WebhooksNotConfigured
        await self._callbacks.check(callback_url)
        await self._callbacks.prepare(owner)

    def _new_operation(self, by: Principal, create_request: CreateRequest) -> NewOperation:
        """Return the operation to store: clamped to the limits, owned by `by`."""
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
            schedule_time=create_request.schedule_time,
            priority=self._limits.priority(create_request.priority),
            unique_key=create_request.unique_key,
            refuses_to_join=create_request.refuses_to_join,
            retry_policy=self._limits.retry_policy(
                create_request.initial_backoff,
                create_request.backoff_multiplier,
                create_request.max_backoff,
            ),
            queue_timeout=self._limits.phase_timeout(create_request.queue_timeout),
            run_timeout=self._limits.phase_timeout(create_request.run_timeout),
        )

    async def get(self, by: Principal, operation_id: OperationId) -> Operation:
        """Read one operation as last committed."""
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
        """List operations of `by`, for an admin those of all owners, newest first.

        Returns one page and the token of the next page; the token is empty on the last page. A page
        has fewer operations than asked for if its answer would exceed the limit of its size.

        Raises:
            PermissionDenied: the selection names another owner, and `by` is not an admin.
        """
        reachable = access_filter(by, LISTERS)
        if selection.owner not in (None, by.subject) and not reachable.everything:
            raise PermissionDenied(role=Role.ADMIN)
        after = self._after(page_token, by, selection)
        limit = page_size or self._limits.page_size_default
        max_bytes = self._limits.answer_bytes
        page = await self._store.list(
            reachable, selection, after, limit, full=full, max_bytes=max_bytes
        )
        if page.is_last:
            return page.items, ""
        last = page.items[-1]
        position = Position(create_time=last.create_time, id=last.id)
        token = self._page_tokens.issue(position, subject=by.subject, selection=selection)
        return page.items, token

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
        grace: timedelta | None = None,
    ) -> TransitionResult:
        """Cancel an active operation; keep its progress and metadata.

        With a `grace`, a processing operation is left to its worker for that time.
        """
        grace = self._limits.grace(grace)
        transition = Transition.CANCEL if grace is None else Transition.REQUEST_CANCEL
        return await self._transition(
            by, transition, operation_id, preconditions, reason=reason, grace=grace
        )

    async def acknowledge_cancellation(
        self, by: Principal, operation_id: OperationId, preconditions: Preconditions
    ) -> TransitionResult:
        """Cancel a processing operation whose cancel was requested: its worker has stopped.

        Raises:
            CancellationNotRequested: no cancel was requested.
        """
        return await self._transition(by, Transition.ACKNOWLEDGE, operation_id, preconditions)

    async def delete(
        self, by: Principal, operation_id: OperationId, preconditions: Preconditions
    ) -> None:
        """Delete a terminal operation before its expire_time."""
        request = transition_request(by, Transition.PURGE, operation_id, preconditions)
        await self._committer.delete(by, request)

    async def start(
        self,
        by: Principal,
        operation_id: OperationId,
        preconditions: Preconditions,
        *,
        progress: float | None = None,
        worker: str | None = None,
    ) -> TransitionResult:
        """Start a pending operation, without a lease."""
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
        checkpoint: Payload | None = None,
    ) -> TransitionResult:
        """Report progress and renew the lease; start the operation if it is pending."""
        return await self._transition(
            by,
            Transition.PROGRESS,
            operation_id,
            preconditions,
            progress=progress,
            message=message,
            checkpoint=checkpoint,
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
        """Complete a processing operation: store its result and set progress to 1.0."""
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
        retryable: bool = False,
        retry_delay: timedelta | None = None,
    ) -> TransitionResult:
        """Fail an active operation: store its errors and keep its progress.

        A retryable failure fails only the attempt, while others are left: the operation is pending
        again after `retry_delay`, or else after the pause of its retry policy.
        """
        return await self._transition(
            by,
            Transition.RETRY if retryable else Transition.FAIL,
            operation_id,
            preconditions,
            errors=errors,
            delay=self._limits.retry_delay(retry_delay),
        )

    async def release(
        self,
        by: Principal,
        operation_id: OperationId,
        preconditions: Preconditions,
        *,
        delay: timedelta | None = None,
        reason: str | None = None,
    ) -> TransitionResult:
        """Give a processing operation back, claimable at once or after a delay."""
        delay = self._limits.release_delay(delay)
        return await self._transition(
            by, Transition.RELEASE, operation_id, preconditions, delay=delay, reason=reason
        )

    async def _transition(
        self,
        by: Principal,
        transition: Transition,
        operation_id: OperationId,
        preconditions: Preconditions,
        **effects: Any,
    ) -> TransitionResult:
        request = transition_request(by, transition, operation_id, preconditions, **effects)
        if transition in ENDING and self._pending_progress is not None:
            await self._pending_progress.flush(operation_id, request.access_filter)
        result = await self._committer.commit(by, request)
        self._wake_dispatcher(transition, result.operation)
        return result

    def _wake_dispatcher(self, transition: Transition, operation: Operation) -> None:
        """Have a webhook sent at once. Progress is too frequent for that and rarely causes one."""
        has_webhook = operation.callback_url is not None and transition is not Transition.PROGRESS
        if has_webhook and self._callbacks is not None:
            self._callbacks.wake()
