"""Settings of rate limits and quotas: of one principal, and of all callers together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator

from milepost.config.values import EMPTY_IS_NONE, Count, CountOrNone, Pause
from milepost.domain.rates import Allowance, Allowances, read_allowances

if TYPE_CHECKING:
    from urllib.parse import SplitResult

_ALLOWANCE: Final = Allowance()


class RateSettings(BaseModel):
    """Quotas, rate limits and limits of concurrent calls."""

    active_operations_max: Count = Field(
        _ALLOWANCE.active, description="Active operations of one owner, on all replicas together"
    )
    creates_per_minute: Count = Field(
        _ALLOWANCE.creates, description="Creates of one principal per minute"
    )
    lists_per_minute: Count = Field(
        _ALLOWANCE.lists, description="Lists of one principal per minute"
    )
    reads_per_minute: Count = Field(
        _ALLOWANCE.reads, description="Other reads of one principal per minute"
    )
    changes_per_minute: Count = Field(
        _ALLOWANCE.changes,
        description="Cancels, deletes and other changes by one principal per minute",
    )
    worker_writes_per_minute: Count = Field(
        _ALLOWANCE.worker_writes,
        description="Writes of one worker per minute, updates of streams included",
    )
    principal_limits: str = Field(
        "{}",
        description="Limits of single principals, as JSON by subject:"
        ' {"alice": {"creates": 500, "active": 100}}',
    )
    limits_url: Annotated[SecretStr | None, EMPTY_IS_NONE] = Field(
        None,
        description="Redis or Valkey that shares the limits among all replicas,"
        " redis://HOST:6379/0; without it each replica counts for itself",
    )
    progress_interval_seconds: Pause = Field(
        0.0, description="Shortest time between two unary progress updates of one operation"
    )
    auth_failures_per_minute: CountOrNone = Field(
        60, description="Bad credentials accepted from one address per minute; 0 for no limit"
    )
    calls_max: Count = Field(1_000, description="Concurrent calls; further ones are refused")
    waiting_calls_max: Count = Field(
        20_000, description="Concurrent streams and waiting calls; further ones are refused"
    )

    @field_validator("principal_limits")
    @classmethod
    def _allowances_given(cls, value: str) -> str:
        _, problems = read_allowances(value, _ALLOWANCE)
        if problems:
            raise ValueError("; ".join(problems))
        return value

    @field_validator("limits_url")
    @classmethod
    def _limits_store(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        parts = _split(value.get_secret_value())
        if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
            raise ValueError("must be redis://HOST:PORT/NUMBER, or rediss:// with TLS")
        if _port(parts) is None or not re.fullmatch(r"/?\d*", parts.path, re.ASCII):
            raise ValueError("must have a port from 1 to 65535 and a number as its path, if any")
        return value

    @property
    def allowances(self) -> Allowances:
        """The configured limits of each principal."""
        default = Allowance(
            creates=self.creates_per_minute,
            lists=self.lists_per_minute,
            reads=self.reads_per_minute,
            changes=self.changes_per_minute,
            worker_writes=self.worker_writes_per_minute,
            active=self.active_operations_max,
        )
        special, _ = read_allowances(self.principal_limits, default)
        return Allowances(default=default, by_subject=special)


def _split(url: str) -> SplitResult:
    """Return the parts of a URL. The messages of Python quote it."""
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("must be a URL") from None


def _port(parts: SplitResult) -> int | None:
    """Return the port of a URL, the default of Redis without one, or None if it is invalid."""
    try:
        return parts.port or 6_379
    except ValueError:
        return None
