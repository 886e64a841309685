"""Limits: how often each principal may call, by kind of call; messages of a stream count too.

Limits belong to the subject, not to its credential: another key is no way around them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry
from milepost.domain.operation import ID_LENGTH
from milepost.domain.rates import Allowance, Allowances, Kind, Rate
from milepost.rpc.caller import caller
from milepost.rpc.interceptors.auth import is_public
from milepost.rpc.interceptors.failures import limited
from milepost.tracking.buckets import LocalBuckets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from milepost.domain.ports import BucketKey, RateLimiter
    from milepost.rpc.interceptors.chain import Call, Context, Proceed

KINDS: Final = {
    "milepost.v1.OperationService/CreateOperation": Kind.CREATES,
    "milepost.v1.OperationService/GetOperation": Kind.READS,
    "milepost.v1.OperationService/ListOperations": Kind.LISTS,
    "milepost.v1.OperationService/WaitOperation": Kind.READS,
    "milepost.v1.OperationService/WatchOperation": Kind.READS,
    "milepost.v1.OperationService/CancelOperation": Kind.CHANGES,
    "milepost.v1.OperationService/DeleteOperation": Kind.CHANGES,
    "milepost.v1.WorkerService/ClaimOperations": Kind.WORKER_WRITES,
    "milepost.v1.WorkerService/StartOperation": Kind.WORKER_WRITES,
    "milepost.v1.WorkerService/UpdateProgress": Kind.WORKER_WRITES,
    "milepost.v1.WorkerService/StreamProgress": Kind.WORKER_WRITES,
    "milepost.v1.WorkerService/CompleteOperation": Kind.WORKER_WRITES,
    "milepost.v1.WorkerService/FailOperation": Kind.WORKER_WRITES,
    "milepost.v1.WebhookService/GetSigningSecret": Kind.READS,
    "milepost.v1.WebhookService/RotateSigningSecret": Kind.CHANGES,
    "milepost.v1.WebhookService/ListDeliveries": Kind.LISTS,
    "milepost.v1.WebhookService/RedeliverWebhook": Kind.CHANGES,
    "milepost.v1.WebhookService/SendTestWebhook": Kind.CHANGES,
    "milepost.v1.AdminService/CleanupExpired": Kind.CHANGES,
    "milepost.v1.AdminService/CreateApiKey": Kind.CHANGES,
    "milepost.v1.AdminService/ListApiKeys": Kind.LISTS,
    "milepost.v1.AdminService/RevokeApiKey": Kind.CHANGES,
}
"""What each call counts as. One that is not listed is a change: never free."""

PROGRESS: Final = "milepost.v1.WorkerService/UpdateProgress"
PROGRESS_LIMIT: Final = "progress_updates_of_one_operation"


class RateLimits:
    """Refuses calls, and ends streams, of a principal that is faster than it may be."""

    def __init__(
        self,
        limiter: RateLimiter,
        allowances: Allowances,
        *,
        progress_interval: timedelta = timedelta(0),
    ) -> None:
        """Take from the buckets of `limiter` what `allowances` put into them.

        Args:
            limiter: where the buckets are.
            allowances: of every principal.
            progress_interval: the shortest time between two unary progress updates of one
                operation by one principal; 0 is none.
        """
        self._limiter = limiter
        self._default = _rates(allowances.default)
        self._special = {who: _rates(each) for who, each in allowances.by_subject.items()}
        self._interval = Rate(count=1, period=progress_interval) if progress_interval else None

    async def around(self, proceed: Proceed, call: Call, request: Any, context: Context) -> Any:
        """Let the call on if its principal has one left."""
        kind = KINDS.get(call.method)
        if kind is None:
            if is_public(call.method):
                return await proceed(call, request, context)
            kind = Kind.CHANGES
        subject = caller().subject
        key = (kind, subject)
        rate = self._special.get(subject, self._default)[kind]
        wait = await self._limiter.take(key, rate)
        if wait:
            raise limited(kind, rate, wait)
        if self._interval is not None and call.method == PROGRESS:
            await self._pace(self._interval, request, subject)
        if call.streams and hasattr(request, "__aiter__"):
            request = self._charged(request, key, rate)
        return await proceed(call, request, context)

    async def _pace(self, interval: Rate, request: Any, subject: str) -> None:
        """Refuse progress of one operation that comes faster than the interval.

        With the subject in the key: nobody can use up what another's operation has.
        """
        operation_id = getattr(request, "operation_id", "")[:ID_LENGTH]
        wait = await self._limiter.take(("progress", operation_id, subject), interval)
        if wait:
            raise limited(PROGRESS_LIMIT, interval, wait)

    async def _charged(
        self, messages: AsyncIterator[Any], key: BucketKey, rate: Rate
    ) -> AsyncIterator[Any]:
        """Hand the messages of a stream on, each for its price."""
        async for message in messages:
            wait = await self._limiter.take(key, rate)
            if wait:
                raise limited(key[0], rate, wait)
            yield message


def local_buckets() -> LocalBuckets:
    """Return the buckets of this process, which the metrics show."""
    buckets = LocalBuckets()
    telemetry.buckets.set_function(lambda: len(buckets))
    return buckets


def _rates(allowance: Allowance) -> Mapping[Kind, Rate]:
    return {kind: allowance.rate(kind) for kind in Kind}
