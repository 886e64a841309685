"""The workload: how much work is active, and for how long the oldest of it waits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from milepost.domain.operation import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionLoad:
    """The active operations of one function."""

    function: str
    active: Mapping[Status, int]
    """Operations of each active status, up to the share of this function."""
    oldest_pending_age: timedelta
    """Time for which the oldest claimable operation has waited; zero if none waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The active operations by function, and the webhooks that are due."""

    functions: Sequence[FunctionLoad]
    webhook_overdue: timedelta
    """Time since the oldest unsettled delivery was due; zero if none is due."""
