"""The methods of milepost.v1, google.longrunning and health: one row each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from milepost.access.method import Method
from milepost.access.policy import UseCase
from milepost.domain.rates import RateLimitClass as Limit

if TYPE_CHECKING:
    from collections.abc import Mapping

_OPERATIONS: Final = "milepost.v1.OperationService"
_WORK: Final = "milepost.v1.WorkerService"
_WEBHOOKS: Final = "milepost.v1.WebhookService"
_ADMIN: Final = "milepost.v1.AdminService"
_GOOGLE: Final = "google.longrunning.Operations"
_HEALTH: Final = "grpc.health.v1.Health"


def _row(
    service: str,
    name: str,
    use_case: UseCase,
    rate_limit: Limit,
    *,
    long_running: bool = False,
    audited: bool = False,
) -> Method:
    return Method(
        name=f"{service}/{name}",
        use_case=use_case,
        rate_limit=rate_limit,
        long_running=long_running,
        audited=audited,
        # Stock clients poll on after UNAVAILABLE only.
        limits_are_temporary=service == _GOOGLE,
    )


_ROWS: Final = (
    _row(_OPERATIONS, "CreateOperation", UseCase.CREATE_OPERATION, Limit.CREATES),
    _row(_OPERATIONS, "GetOperation", UseCase.READ_OPERATION, Limit.READS),
    _row(_OPERATIONS, "ListOperations", UseCase.LIST_OPERATIONS, Limit.LISTS),
    _row(_OPERATIONS, "WaitOperation", UseCase.READ_OPERATION, Limit.READS, long_running=True),
    _row(_OPERATIONS, "WatchOperation", UseCase.READ_OPERATION, Limit.READS, long_running=True),
    _row(_OPERATIONS, "ListEvents", UseCase.LIST_EVENTS, Limit.LISTS),
    _row(_OPERATIONS, "CancelOperation", UseCase.CANCEL_OPERATION, Limit.CHANGES),
    _row(_OPERATIONS, "DeleteOperation", UseCase.DELETE_OPERATION, Limit.CHANGES),
    _row(
        _WORK, "ClaimOperations", UseCase.CLAIM_OPERATIONS, Limit.WORKER_WRITES, long_running=True
    ),
    _row(_WORK, "StartOperation", UseCase.START_OPERATION, Limit.WORKER_WRITES),
    _row(_WORK, "UpdateProgress", UseCase.REPORT_PROGRESS, Limit.WORKER_WRITES),
    _row(_WORK, "StreamProgress", UseCase.REPORT_PROGRESS, Limit.WORKER_WRITES, long_running=True),
    _row(_WORK, "CompleteOperation", UseCase.COMPLETE_OPERATION, Limit.WORKER_WRITES),
    _row(_WORK, "FailOperation", UseCase.FAIL_OPERATION, Limit.WORKER_WRITES),
    _row(_WORK, "AcknowledgeCancellation", UseCase.ACKNOWLEDGE_CANCELLATION, Limit.WORKER_WRITES),
    _row(_WORK, "ReleaseOperation", UseCase.RELEASE_OPERATION, Limit.WORKER_WRITES),
    # Audited, because it gives the secret away.
    _row(_WEBHOOKS, "GetSigningSecret", UseCase.MANAGE_WEBHOOKS, Limit.READS, audited=True),
    _row(_WEBHOOKS, "RotateSigningSecret", UseCase.MANAGE_WEBHOOKS, Limit.CHANGES, audited=True),
    _row(_WEBHOOKS, "ListDeliveries", UseCase.MANAGE_WEBHOOKS, Limit.LISTS),
    _row(_WEBHOOKS, "RedeliverWebhook", UseCase.MANAGE_WEBHOOKS, Limit.CHANGES, audited=True),
    _row(_WEBHOOKS, "SendTestWebhook", UseCase.MANAGE_WEBHOOKS, Limit.CHANGES, audited=True),
    _row(_ADMIN, "PurgeExpiredOperations", UseCase.ADMINISTER, Limit.CHANGES, audited=True),
    _row(_ADMIN, "CreateApiKey", UseCase.ADMINISTER, Limit.CHANGES, audited=True),
    _row(_ADMIN, "ListApiKeys", UseCase.ADMINISTER, Limit.LISTS),
    _row(_ADMIN, "RevokeApiKey", UseCase.ADMINISTER, Limit.CHANGES, audited=True),
    _row(_GOOGLE, "GetOperation", UseCase.READ_OPERATION, Limit.READS),
    _row(_GOOGLE, "ListOperations", UseCase.LIST_OPERATIONS, Limit.LISTS),
    _row(_GOOGLE, "WaitOperation", UseCase.READ_OPERATION, Limit.READS, long_running=True),
    _row(_GOOGLE, "CancelOperation", UseCase.CANCEL_OPERATION, Limit.CHANGES),
    _row(_GOOGLE, "DeleteOperation", UseCase.DELETE_OPERATION, Limit.CHANGES),
)

METHODS: Final[Mapping[str, Method]] = {row.name: row for row in _ROWS}
"""Every method that asks for a credential. One without a row is refused."""

PUBLIC: Final = tuple(
    Method(name=f"{_HEALTH}/{name}", is_public=True) for name in ("Check", "List", "Watch")
)
"""The methods that answer without a credential: those of health."""

_ALL: Final = {**METHODS, **{method.name: method for method in PUBLIC}}


def method_of(name: str) -> Method:
    """Return the row of a method, or one that is refused to everyone."""
    return _ALL.get(name) or Method(name=name)
