"""The one way of a transition of one operation into the store, and its announcement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from milepost import telemetry
from milepost.domain.relations import access_filter
from milepost.domain.transitions import TABLE, TransitionRequest

if TYPE_CHECKING:
    from milepost.domain.operation import OperationId, Principal
    from milepost.domain.ports import LeaseRegister, OperationStore
    from milepost.domain.transitions import Preconditions, Transition, TransitionResult
    from milepost.tracking.subscriptions import Subscriptions


class Committer:
    """Commits transitions, notifies subscribers and records them.

    Every method raises the errors of `OperationStore` too.
    """

    def __init__(
        self,
        store: OperationStore,
        subscriptions: Subscriptions,
        leases: LeaseRegister | None = None,
    ) -> None:
        """Commit to `store`, publish to `subscriptions`, and record leases in `leases`."""
        self._store = store
        self._leases = leases
        self._subscriptions = subscriptions

    async def commit(self, by: Principal, request: TransitionRequest) -> TransitionResult:
        """Commit a transition that `by` requests."""
        result = await self._store.apply(request)
        self._subscriptions.publish(request.id)
        telemetry.record_transition(request.transition, result, by)
        if self._leases is not None:
            self._leases.record(by.subject, result.operation)
        return result

    async def delete(self, by: Principal, request: TransitionRequest) -> None:
        """Delete a terminal operation for `by`."""
        await self._store.delete(request)
        self._subscriptions.publish(request.id)
        telemetry.record_delete(request.id, by)


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
