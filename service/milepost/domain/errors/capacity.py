"""Errors of limits: of a principal or of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.domain.errors.root import MilepostError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta


class LimitReached(MilepostError):
    """A limit of one principal. No data was read or changed."""

    limit: str
    """Name of the limit: a label of metrics, without the principal."""


class RateLimited(LimitReached):
    """Too many calls in a short time. One more is allowed after `retry_after`."""

    reason = "RATE_LIMITED"

    def __init__(
        self, *, limit: str, count: int, period: timedelta, retry_after: timedelta
    ) -> None:
        """Report the limit: its name, its count and its period."""
        self.limit, self.count, self.period = limit, count, period
        self.retry_after = retry_after
        words = limit.replace("_", " ")
        super().__init__(f"too many {words}: at most {count} in {period.total_seconds():g} s")

    @property
    def facts(self) -> Mapping[str, str]:
        """The name, the count and the period of the limit."""
        return {
            "limit": self.limit.replace("_", " "),
            "count": str(self.count),
            "period_seconds": f"{self.period.total_seconds():g}",
        }


class QuotaExceeded(LimitReached):
    """The maximum number of active operations of one owner."""

    reason = "QUOTA_EXCEEDED"
    limit = "active_operations"
    stated = ("active", "quota")

    def __init__(self, *, active: int, quota: int) -> None:
        """Report the number of active operations and the quota."""
        self.active, self.quota = active, quota
        super().__init__(f"{active} operations are active, at most {quota} may be")


class StreamFull(MilepostError):
    """The maximum number of operations on one progress stream."""

    reason = "STREAM_FULL"
    stated = ("max_operations",)

    def __init__(self, *, max_operations: int) -> None:
        """Report the maximum."""
        self.max_operations = max_operations
        super().__init__(f"this stream carries {max_operations} operations, open another one")
