"""The one way of a transition of one operation into the store, and its announcement."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from milepost import telemetry
from milepost.domain.relations import access_filter
from milepost.domain.transitions import CLAIMABLE, TABLE, TransitionRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost.domain.operation import OperationError, OperationId, Principal
    from milepost.domain.ports import LeaseRegister, OperationStore
    from milepost.domain.transitions import Preconditions, Transition, TransitionResult
    from milepost.tracking.claimer import PendingWork
    from milepost.tracking.subscriptions import Subscriptions


class Committer:
    """Commits transitions, notifies subscribers and records them.

    Every method raises the errors of `OperationStore` too.
    """

    def __init__(
        self,
        store: OperationStore,
        subscriptions: Subscriptions,
        work: PendingWork,
        leases: LeaseRegister | None = None,
    ) -> None:
        """Begin.

        Args:
            store: commits.
            subscriptions: are notified of every change.
            work: takes the operations that are pending again.
            leases: records leases; None if nothing depends on them.
        """
        self._store = store
        self._leases = leases
        self._subscriptions = subscriptions
        self._work = work

    async def commit(self, by: Principal, request: TransitionRequest) -> TransitionResult:
        """Commit a transition that `by` requests; announce it also if `by` has given up."""
        announce = functools.partial(
            self.announce, by, request.transition, begun=time.time_ns(), errors=request.errors
        )
        result = await self._store.apply(request, announce)
        announce(result)
        return result

    def announce(
        self,
        by: Principal,
        transition: Transition,
        result: TransitionResult,
        *,
        begun: int,
        errors: Sequence[OperationError] = (),
    ) -> None:
        """Notify subscribers and waiting claims of a committed transition, and record it.

        Args:
            by: the caller.
            transition: the requested one.
            result: what became of it.
            begun: when the work on it began, in nanoseconds since 1970.
            errors: why the attempt failed, if it did.
        """
        self._subscriptions.publish(result.operation.id)
        if result.operation.status in CLAIMABLE:
            self._work.add(result.operation)
        if self._leases is not None:
            self._leases.record(by.subject, result.operation)
        happened = result.transition or transition
        telemetry.record_transition(happened, result, by, begun=begun, errors=errors)

    async def delete(self, by: Principal, request: TransitionRequest) -> None:
        """Delete a terminal operation for `by`."""
        announce = functools.partial(self._announce_delete, by, request, time.time_ns())
        announce(await self._store.delete(request, announce))

    def _announce_delete(
        self, by: Principal, request: TransitionRequest, begun: int, result: TransitionResult | None
    ) -> None:
        self._subscriptions.publish(request.id)
        telemetry.record_delete(request.id, result, by, begun=begun)


def transition_request(
    by: Principal,
    transition: Transition,
    operation_id: OperationId,
    preconditions: Preconditions,
    **effects: Any,
) -> TransitionRequest:
    """Return the request of `by` for a transition, limited to what the table lets `by` reach."""
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
