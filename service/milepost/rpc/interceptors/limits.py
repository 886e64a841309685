"""Limits: how often each principal may call, by kind of call; messages of a stream count too.

Limits belong to the subject, not to its credential: another key is no way around them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from milepost import telemetry
from milepost.domain.operation import ID_LENGTH
from milepost.domain.rates import Allowance, Allowances, Rate, RateLimitClass
from milepost.rpc.caller import caller
from milepost.rpc.interceptors.auth import is_public
from milepost.rpc.interceptors.bad_credentials import limited
from milepost.tracking.buckets import LocalBuckets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from milepost.domain.ports import RateLimiter
    from milepost.domain.rates import BucketKey
    from milepost.rpc.interceptors.chain import Call, CallNext, Context

KINDS: Final = {
    "milepost.v1.OperationService/CreateOperation": RateLimitClass.CREATES,
    "milepost.v1.OperationService/GetOperation": RateLimitClass.READS,
    "milepost.v1.OperationService/ListOperations": RateLimitClass.LISTS,
    "milepost.v1.OperationService/WaitOperation": RateLimitClass.READS,
    "milepost.v1.OperationService/WatchOperation": RateLimitClass.READS,
    "milepost.v1.OperationService/CancelOperation": RateLimitClass.CHANGES,
    "milepost.v1.OperationService/DeleteOperation": RateLimitClass.CHANGES,
    "milepost.v1.WorkerService/ClaimOperations": RateLimitClass.WORKER_WRITES,
    "milepost.v1.WorkerService/StartOperation": RateLimitClass.WORKER_WRITES,
    "milepost.v1.WorkerService/UpdateProgress": RateLimitClass.WORKER_WRITES,
    "milepost.v1.WorkerService/StreamProgress": RateLimitClass.WORKER_WRITES,
    "milepost.v1.WorkerService/CompleteOperation": RateLimitClass.WORKER_WRITES,
    "milepost.v1.WorkerService/FailOperation": RateLimitClass.WORKER_WRITES,
    "milepost.v1.WebhookService/GetSigningSecret": RateLimitClass.READS,
    "milepost.v1.WebhookService/RotateSigningSecret": RateLimitClass.CHANGES,
    "milepost.v1.WebhookService/ListDeliveries": RateLimitClass.LISTS,
    "milepost.v1.WebhookService/RedeliverWebhook": RateLimitClass.CHANGES,
    "milepost.v1.WebhookService/SendTestWebhook": RateLimitClass.CHANGES,
    "milepost.v1.AdminService/CleanupExpired": RateLimitClass.CHANGES,
    "milepost.v1.AdminService/CreateApiKey": RateLimitClass.CHANGES,
    "milepost.v1.AdminService/ListApiKeys": RateLimitClass.LISTS,
    "milepost.v1.AdminService/RevokeApiKey": RateLimitClass.CHANGES,
}
"""What each call counts as. One that is not listed is a change: never free."""

PROGRESS: Final = "milepost.v1.WorkerService/UpdateProgress"
PROGRESS_LIMIT: Final = "progress_updates_of_one_operation"


class _Price(NamedTuple):
    """What a call costs: one from a bucket, which fills at a rate."""

    key: BucketKey
    rate: Rate


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

    async def intercept(
        self, call_next: CallNext, call: Call, request: Any, context: Context
    ) -> Any:
        """Let the call on if its principal has one left."""
        kind = KINDS.get(call.method)
        if kind is None:
            if is_public(call.method):
                return await call_next(call, request, context)
            kind = RateLimitClass.CHANGES
        subject = caller().subject
        price = _Price((kind, subject), self._special.get(subject, self._default)[kind])
        await self._pay(price)
        if self._interval is not None and call.method == PROGRESS:
            # With the subject in the key: nobody can use up what another's operation has.
            operation_id = getattr(request, "operation_id", "")[:ID_LENGTH]
            key = ("progress", operation_id, subject)
            await self._pay(_Price(key, self._interval), PROGRESS_LIMIT)
        if call.streams and hasattr(request, "__aiter__"):
            request = self._charged(request, price)
        return await call_next(call, request, context)

    async def _charged(self, messages: AsyncIterator[Any], price: _Price) -> AsyncIterator[Any]:
        """Hand the messages of a stream on, each for its price."""
        async for message in messages:
            await self._pay(price)
            yield message

    async def _pay(self, price: _Price, limit: str | None = None) -> None:
        wait = await self._limiter.take(*price)
        if wait:
            raise limited(limit or price.key[0], price.rate, wait)


def local_buckets() -> LocalBuckets:
    """Return the buckets of this process, which the metrics show."""
    buckets = LocalBuckets()
    telemetry.buckets.set_function(lambda: len(buckets))
    return buckets


def _rates(allowance: Allowance) -> Mapping[RateLimitClass, Rate]:
    return {kind: allowance.rate(kind) for kind in RateLimitClass}
