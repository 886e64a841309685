"""Every limit of the product, with its default."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of requests. Sizes are in bytes, lengths in characters."""

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
    release_delay_max: timedelta = timedelta(hours=1)
    claim_functions: int = 100
    """Functions in one claim."""
    claim_operations: int = 100
    """Operations that one claim returns."""
    claim_wait: timedelta = timedelta(seconds=60)
    """Longest wait of a claim for work; its request and its deadline may shorten it."""
    metadata_bytes: int = 65_536
    """Of the JSON encoding."""
    nesting_levels: int = 20
    """Of objects and lists, in metadata and error details. A level takes up to three levels of a
    message, and decoders in Python, Java, C++ and Rust stop at 100."""
    result_bytes: int = 1_048_576
    type_url_length: int = 2_048
    """Of the type_url of a result."""
    errors_bytes: int = 1_048_576
    message_length: int = 1_000
    reason_length: int = 1_000
    callback_url_length: int = 2_048
    name_length: int = 255
    """Of a function, version, worker and original_request_id."""
    page_size_default: int = 50
    page_size_max: int = 100
    answer_bytes: int = 3 * 1_048_576
    """Of a claim, or of a page of a list. Clients accept 4 MiB by default."""
    stream_interval: timedelta = timedelta(seconds=1)
    """Shortest interval between two commits of one operation on a progress stream."""
    stream_operations: int = 1_000
    """Operations on one progress stream."""

    def ttl(self, requested: timedelta | None) -> timedelta:
        """Return the ttl of an operation: the requested one within the limits, or the default."""
        return _clamped(requested, self.ttl_default, self.ttl_min, self.ttl_max)

    def retry_after(self, requested: timedelta | None) -> timedelta:
        """Return the suggested delay before the next poll, within the limits."""
        return _clamped(
            requested, self.retry_after_default, self.retry_after_min, self.retry_after_max
        )

    def lease(self, requested: timedelta | None) -> timedelta:
        """Return the lease of a claim and of each renewal, within the limits."""
        return _clamped(requested, self.lease_default, self.lease_min, self.lease_max)

    def release_delay(self, requested: timedelta | None) -> timedelta | None:
        """Return the delay of a release within the limits; None stays None."""
        if requested is None:
            return None
        return min(max(requested, timedelta()), self.release_delay_max)

    def max_attempts(self, requested: int | None) -> int:
        """Return the number of attempts, at least 1."""
        return self.max_attempts_default if requested is None else max(1, requested)


def _clamped(
    requested: timedelta | None, default: timedelta, minimum: timedelta, maximum: timedelta
) -> timedelta:
    return default if requested is None else min(max(requested, minimum), maximum)
