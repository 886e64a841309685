"""Settings of attempts: leases, retries, timeouts and checkpoints."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from milepost.config.values import Count, Pause, Seconds, within
from milepost.domain.limits import Limits

_DEFAULTS: Final = Limits()
_Factor = Annotated[float, Field(ge=1, le=1_000, allow_inf_nan=False)]
_Days = Annotated[int, Field(gt=0, le=3_650)]


class AttemptSettings(BaseModel):
    """The limits of the attempts of an operation."""

    lease_min_seconds: Seconds = Field(
        _DEFAULTS.lease_min.total_seconds(), description="Shortest lease of a claim"
    )
    lease_max_seconds: Seconds = Field(
        _DEFAULTS.lease_max.total_seconds(), description="Longest lease of a claim"
    )
    lease_default_seconds: Seconds = Field(
        _DEFAULTS.lease_default.total_seconds(),
        description="Lease of a claim, and of each renewal, if the worker sets none",
    )
    claim_wait_seconds: Seconds = Field(
        _DEFAULTS.claim_wait.total_seconds(), description="Longest wait of a claim for work"
    )
    max_attempts_default: Count = Field(
        _DEFAULTS.max_attempts_default,
        description="Failed attempts after which an operation fails",
    )
    initial_backoff_max_seconds: Pause = Field(
        _DEFAULTS.initial_backoff_max.total_seconds(),
        description="Longest first pause between two attempts; longer ones are cut to it",
    )
    initial_backoff_default_seconds: Pause = Field(
        _DEFAULTS.initial_backoff_default.total_seconds(),
        description="First pause between two attempts if the caller sets none",
    )
    backoff_multiplier_max: _Factor = Field(
        _DEFAULTS.backoff_multiplier_max,
        description="Largest factor between two such pauses; larger ones are cut to it",
    )
    backoff_multiplier_default: _Factor = Field(
        _DEFAULTS.backoff_multiplier_default,
        description="Factor between two such pauses if the caller sets none",
    )
    max_backoff_max_seconds: Pause = Field(
        _DEFAULTS.max_backoff_max.total_seconds(),
        description="Upper limit of the longest pause that a caller may choose",
    )
    max_backoff_default_seconds: Pause = Field(
        _DEFAULTS.max_backoff_default.total_seconds(),
        description="Longest pause between two attempts if the caller sets none",
    )
    retry_delay_max_seconds: Pause = Field(
        _DEFAULTS.retry_delay_max.total_seconds(),
        description="Longest pause that a worker may choose for the next attempt",
    )
    release_delay_max_seconds: Pause = Field(
        _DEFAULTS.release_delay_max.total_seconds(), description="Longest delay of a release"
    )
    phase_timeout_min_seconds: Seconds = Field(
        _DEFAULTS.phase_timeout_min.total_seconds(),
        description="Shortest queue_timeout and run_timeout; shorter ones are raised to it",
    )
    phase_timeout_max_seconds: Seconds = Field(
        _DEFAULTS.phase_timeout_max.total_seconds(),
        description="Longest queue_timeout and run_timeout; longer ones are cut to it",
    )
    schedule_days_max: _Days = Field(
        _DEFAULTS.schedule_max.days, description="How far ahead a schedule_time may be, in days"
    )
    grace_max_seconds: Pause = Field(
        _DEFAULTS.grace_max.total_seconds(),
        description="Longest grace of a requested cancel; longer ones are cut to it",
    )
    checkpoint_bytes_max: Count = Field(
        _DEFAULTS.checkpoint_bytes, description="Largest checkpoint of an operation"
    )

    _defaults_are_within_limits = field_validator(
        "lease_default_seconds",
        "initial_backoff_default_seconds",
        "backoff_multiplier_default",
        "max_backoff_default_seconds",
    )(within)

    @field_validator("phase_timeout_max_seconds")
    @classmethod
    def _not_below_minimum(cls, value: float, info: ValidationInfo) -> float:
        minimum = info.data.get("phase_timeout_min_seconds", value)
        if value < minimum:
            raise ValueError(f"must be at least the minimum, {minimum}")
        return value

    @property
    def attempt_limits(self) -> Limits:
        """The configured limits of attempts; the other limits have their defaults."""
        return Limits(
            lease_default=timedelta(seconds=self.lease_default_seconds),
            lease_min=timedelta(seconds=self.lease_min_seconds),
            lease_max=timedelta(seconds=self.lease_max_seconds),
            claim_wait=timedelta(seconds=self.claim_wait_seconds),
            max_attempts_default=self.max_attempts_default,
            initial_backoff_default=timedelta(seconds=self.initial_backoff_default_seconds),
            initial_backoff_max=timedelta(seconds=self.initial_backoff_max_seconds),
            backoff_multiplier_default=self.backoff_multiplier_default,
            backoff_multiplier_max=self.backoff_multiplier_max,
            max_backoff_default=timedelta(seconds=self.max_backoff_default_seconds),
            max_backoff_max=timedelta(seconds=self.max_backoff_max_seconds),
            retry_delay_max=timedelta(seconds=self.retry_delay_max_seconds),
            release_delay_max=timedelta(seconds=self.release_delay_max_seconds),
            phase_timeout_min=timedelta(seconds=self.phase_timeout_min_seconds),
            phase_timeout_max=timedelta(seconds=self.phase_timeout_max_seconds),
            schedule_max=timedelta(days=self.schedule_days_max),
            grace_max=timedelta(seconds=self.grace_max_seconds),
            checkpoint_bytes=self.checkpoint_bytes_max,
        )
