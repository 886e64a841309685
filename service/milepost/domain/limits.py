"""Every limit of the product, with its default. All of them can be configured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is clamped and what is refused. Sizes are in bytes, lengths in characters."""

    ttl_default: timedelta = timedelta(hours=24)
    ttl_min: timedelta = timedelta(seconds=60)
    ttl_max: timedelta = timedelta(days=7)
    retry_after_default: timedelta = timedelta(seconds=5)
    retry_after_min: timedelta = timedelta(seconds=1)
    retry_after_max: timedelta = timedelta(hours=1)
    max_attempts_default: int = 3
    lease_default: timedelta = timedelta(seconds=30)
    lease_min: timedelta = timedelta(seconds=5)
    lease_max: timedelta = timedelta(hours=1)
    claim_functions: int = 100
    """That one claim may name."""
    claim_operations: int = 100
    """That one claim may be answered with."""
    claim_wait: timedelta = timedelta(seconds=60)
    """How long a claim waits for work if its caller and its deadline allow."""
    metadata_bytes: int = 65_536
    """Of the JSON encoding."""
    result_bytes: int = 1_048_576
    type_url_length: int = 2_048
    """Of a result, beside its bytes."""
    errors_bytes: int = 1_048_576
    message_length: int = 1_000
    reason_length: int = 1_000
    callback_url_length: int = 2_048
    name_length: int = 255
    """Of a function, version, worker and original_request_id."""
    page_size_default: int = 50
    page_size_max: int = 100
    stream_interval: timedelta = timedelta(seconds=1)
    """Between two commits of one operation on a progress stream."""
    stream_operations: int = 1_000
    """Of one progress stream."""

    def ttl(self, asked: timedelta | None) -> timedelta:
        """Return how long an operation is kept, whatever was asked for."""
        return _clamped(asked, self.ttl_default, self.ttl_min, self.ttl_max)

    def retry_after(self, asked: timedelta | None) -> timedelta:
        """Return the delay that is suggested before the next poll."""
        return _clamped(asked, self.retry_after_default, self.retry_after_min, self.retry_after_max)

    def lease(self, asked: timedelta | None) -> timedelta:
        """Return how long a claim, and each renewal of it, holds."""
        return _clamped(asked, self.lease_default, self.lease_min, self.lease_max)

    def max_attempts(self, asked: int | None) -> int:
        """Return how often the work may be started."""
        return self.max_attempts_default if asked is None else max(1, asked)


def _clamped(
    asked: timedelta | None, default: timedelta, least: timedelta, most: timedelta
) -> timedelta:
    return default if asked is None else min(max(asked, least), most)
