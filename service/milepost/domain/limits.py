"""Every limit of the product, with its default."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from milepost.domain.operation import RetryPolicy

_NONE: Final = timedelta()


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
    priority_default: int = 5
    priority_max: int = 9
    unique_key_length: int = 255
    schedule_max: timedelta = timedelta(days=30)
    """How far in the future a `schedule_time` may be."""
    initial_backoff_default: timedelta = timedelta(seconds=1)
    initial_backoff_max: timedelta = timedelta(hours=1)
    backoff_multiplier_default: float = 2.0
    backoff_multiplier_max: float = 10.0
    max_backoff_default: timedelta = timedelta(minutes=5)
    max_backoff_max: timedelta = timedelta(days=1)
    retry_delay_max: timedelta = timedelta(days=1)
    """Of the delay that a worker chooses for the next attempt."""
    phase_timeout_min: timedelta = timedelta(seconds=1)
    phase_timeout_max: timedelta = timedelta(days=7)
    """Of `queue_timeout` and `run_timeout`."""
    grace_max: timedelta = timedelta(hours=1)
    """Of a requested cancel."""
    checkpoint_bytes: int = 65_536

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

    def priority(self, requested: int | None) -> int:
        """Return the priority of an operation."""
        return self.priority_default if requested is None else requested

    def retry_policy(
        self,
        initial_backoff: timedelta | None,
        backoff_multiplier: float | None,
        max_backoff: timedelta | None,
    ) -> RetryPolicy:
        """Return the retry policy of an operation, within the limits."""
        multiplier = (
            self.backoff_multiplier_default if backoff_multiplier is None else backoff_multiplier
        )
        return RetryPolicy(
            initial_backoff=_clamped(
                initial_backoff, self.initial_backoff_default, _NONE, self.initial_backoff_max
            ),
            backoff_multiplier=min(max(multiplier, 1.0), self.backoff_multiplier_max),
            max_backoff=_clamped(
                max_backoff, self.max_backoff_default, _NONE, self.max_backoff_max
            ),
        )

    def phase_timeout(self, requested: timedelta | None) -> timedelta | None:
        """Return the queue_timeout or run_timeout of an operation, within the limits."""
        return _clamped_if_set(requested, self.phase_timeout_min, self.phase_timeout_max)

    def retry_delay(self, requested: timedelta | None) -> timedelta | None:
        """Return the delay of the next attempt that a worker asks for, within the limits."""
        return _clamped_if_set(requested, _NONE, self.retry_delay_max)

    def grace(self, requested: timedelta | None) -> timedelta | None:
        """Return the grace of a requested cancel, within the limits; None for none."""
        return _clamped_if_set(requested, _NONE, self.grace_max) or None

    def release_delay(self, requested: timedelta | None) -> timedelta | None:
        """Return the delay of a release, within the limits."""
        return _clamped_if_set(requested, _NONE, self.release_delay_max)

    def max_attempts(self, requested: int | None) -> int:
        """Return the number of attempts, at least 1."""
        return self.max_attempts_default if requested is None else max(1, requested)


def _clamped(
    requested: timedelta | None, default: timedelta, minimum: timedelta, maximum: timedelta
) -> timedelta:
    return default if requested is None else min(max(requested, minimum), maximum)


def _clamped_if_set(
    requested: timedelta | None, minimum: timedelta, maximum: timedelta
) -> timedelta | None:
    return None if requested is None else min(max(requested, minimum), maximum)
