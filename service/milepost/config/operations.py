"""Settings of operations: lifetimes, sizes and periodic sweeps."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from pydantic import Field, field_validator

from milepost.config.attempts import AttemptSettings
from milepost.config.values import Count, Pause, Seconds, within
from milepost.domain.limits import Limits

_DEFAULTS: Final = Limits()


class OperationSettings(AttemptSettings):
    """The limits of operations and lists, and the intervals of the periodic tasks."""

    ttl_min_seconds: Seconds = Field(
        _DEFAULTS.ttl_min.total_seconds(), description="Shortest ttl; shorter ones are raised to it"
    )
    ttl_max_seconds: Seconds = Field(
        _DEFAULTS.ttl_max.total_seconds(), description="Longest ttl; longer ones are cut to it"
    )
    ttl_default_seconds: Seconds = Field(
        _DEFAULTS.ttl_default.total_seconds(),
        description="ttl of an operation if its caller sets none",
    )
    retry_after_min_seconds: Seconds = Field(
        _DEFAULTS.retry_after_min.total_seconds(), description="Shortest pause between two polls"
    )
    retry_after_max_seconds: Seconds = Field(
        _DEFAULTS.retry_after_max.total_seconds(), description="Longest pause between two polls"
    )
    retry_after_default_seconds: Seconds = Field(
        _DEFAULTS.retry_after_default.total_seconds(),
        description="Suggested pause between two polls if the caller sets none",
    )
    lease_sweep_seconds: Seconds = Field(
        1.0, description="Pause between two sweeps of expired leases"
    )
    cleanup_seconds: Seconds = Field(
        60.0, description="Pause between two sweeps of expired operations"
    )
    measure_seconds: Seconds = Field(
        5.0, description="Pause between two counts of overdue and active operations"
    )
    events_kept_seconds: Seconds = Field(
        604_800.0, description="Retention of the events of a removed operation"
    )
    metadata_bytes_max: Count = Field(
        _DEFAULTS.metadata_bytes, description="Largest metadata of an operation, as JSON"
    )
    result_bytes_max: Count = Field(
        _DEFAULTS.result_bytes, description="Largest result of an operation"
    )
    errors_bytes_max: Count = Field(
        _DEFAULTS.errors_bytes, description="Largest list of errors of an operation"
    )
    message_length_max: Count = Field(
        _DEFAULTS.message_length, description="Longest progress message, in characters"
    )
    page_size_max: Count = Field(
        _DEFAULTS.page_size_max,
        description="Maximum size of a page; a larger page_size means this one",
    )
    stream_interval_seconds: Pause = Field(
        _DEFAULTS.stream_interval.total_seconds(),
        description="Shortest time between two commits of one operation on a progress stream",
    )
    stream_operations_max: Count = Field(
        _DEFAULTS.stream_operations, description="Most operations on one progress stream"
    )
    page_size_default: Count = Field(
        _DEFAULTS.page_size_default,
        description="Operations on one page of a list if the caller sets no size",
    )

    _defaults_are_within = field_validator(
        "ttl_default_seconds", "retry_after_default_seconds", "page_size_default"
    )(within)

    @property
    def limits(self) -> Limits:
        """The configured limits."""
        return replace(
            self.attempt_limits,
            ttl_default=timedelta(seconds=self.ttl_default_seconds),
            ttl_min=timedelta(seconds=self.ttl_min_seconds),
            ttl_max=timedelta(seconds=self.ttl_max_seconds),
            retry_after_default=timedelta(seconds=self.retry_after_default_seconds),
            retry_after_min=timedelta(seconds=self.retry_after_min_seconds),
            retry_after_max=timedelta(seconds=self.retry_after_max_seconds),
            metadata_bytes=self.metadata_bytes_max,
            result_bytes=self.result_bytes_max,
            errors_bytes=self.errors_bytes_max,
            message_length=self.message_length_max,
            page_size_default=self.page_size_default,
            page_size_max=self.page_size_max,
            stream_interval=timedelta(seconds=self.stream_interval_seconds),
            stream_operations=self.stream_operations_max,
        )
