"""A sample of each error, with its status code in the specification."""

from datetime import timedelta

import pytest
from grpc import StatusCode

from milepost.domain import errors
from milepost.domain.errors import IllegalTransition, InvalidRequest, MilepostError, Violation
from milepost.domain.transitions import Transition

ILLEGAL = IllegalTransition(transition=Transition.START, status="FAILED", allowed=("PENDING",))

SAMPLES: dict[MilepostError, StatusCode] = {
    InvalidRequest(Violation("a", "b"), Violation("c", "d")): StatusCode.INVALID_ARGUMENT,
    errors.ProgressDecrease(current=0.5, requested=0.25): StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated(): StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied(role="ADMIN"): StatusCode.PERMISSION_DENIED,
    errors.ApiKeyNotFound("0" * 16): StatusCode.NOT_FOUND,
    errors.OperationNotFound("op_1"): StatusCode.NOT_FOUND,
    errors.OperationExpired("op_1"): StatusCode.NOT_FOUND,
    errors.OperationDeleted("op_1", request_id="r"): StatusCode.NOT_FOUND,
    errors.DeliveryNotFound("msg_1"): StatusCode.NOT_FOUND,
    errors.SigningSecretNotFound(): StatusCode.NOT_FOUND,
    ILLEGAL: StatusCode.FAILED_PRECONDITION,
    errors.CancellationNotRequested("op_1"): StatusCode.FAILED_PRECONDITION,
    errors.RevisionMismatch(expected=1, actual=2): StatusCode.ABORTED,
    errors.StaleAttempt(expected=1, actual=2): StatusCode.ABORTED,
    errors.LostRace("op_1", tries=3): StatusCode.ABORTED,
    errors.RevisionAhead(requested=3, actual=2): StatusCode.OUT_OF_RANGE,
    errors.RequestIdReused("r"): StatusCode.ALREADY_EXISTS,
    errors.UniqueKeyTaken("nightly", "op_1"): StatusCode.ALREADY_EXISTS,
    errors.WebhooksNotConfigured(): StatusCode.FAILED_PRECONDITION,
    errors.RateLimited(
        limit="worker_writes",
        count=6_000,
        period=timedelta(seconds=60),
        retry_after=timedelta(milliseconds=10),
    ): StatusCode.RESOURCE_EXHAUSTED,
    errors.QuotaExceeded(active=10, quota=10): StatusCode.RESOURCE_EXHAUSTED,
    errors.StreamFull(max_operations=1): StatusCode.RESOURCE_EXHAUSTED,
    errors.StoreUnavailable(): StatusCode.UNAVAILABLE,
    errors.IdentityProviderUnavailable(): StatusCode.UNAVAILABLE,
    errors.Overloaded(): StatusCode.UNAVAILABLE,
    errors.Draining(): StatusCode.UNAVAILABLE,
    errors.IdsExhausted(tries=10): StatusCode.INTERNAL,
}
samples = pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
