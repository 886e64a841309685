"""Metrics of operations by function: created, finished, active, waiting, and lost attempts."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram

from milepost.domain.transitions import ACTIVE, TERMINAL, Transition
from milepost.telemetry.function_labels import FunctionLabels
from milepost.telemetry.metrics import registry

if TYPE_CHECKING:
    from milepost.domain.operation import Operation
    from milepost.domain.workload import Workload

_created: Final = Counter(
    "milepost_operations_created_total", "Created operations", ["function"], registry=registry
)
_finished: Final = Counter(
    "milepost_operations_finished_total",
    "Operations that reached a terminal status",
    ["function", "status"],
    registry=registry,
)
_leases_lost: Final = Counter(
    "milepost_leases_lost_total",
    "Leases that expired before the operation ended; the attempt is lost",
    ["function"],
    registry=registry,
)
_retried: Final = Counter(
    "milepost_attempts_retried_total",
    "Attempts that failed or ran out of time, and are followed by another one",
    ["function"],
    registry=registry,
)
_claim_waits: Final = Histogram(
    "milepost_operation_claim_wait_seconds",
    "Time from the create of an operation, or its scheduled time, to its first claim or start",
    registry=registry,
    buckets=(0.005, 0.02, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600),
)
_active: Final = Gauge(
    "milepost_operations_active",
    "Active operations in the database, counted up to 50,000 divided by the number of functions",
    ["function", "status"],
    registry=registry,
)
_oldest_pending: Final = Gauge(
    "milepost_operations_oldest_pending_age_seconds",
    "Time for which the oldest claimable operation in the database has waited",
    ["function"],
    registry=registry,
)
webhook_overdue: Final = Gauge(
    "milepost_webhooks_overdue_seconds",
    "Time since the oldest unsettled webhook in the database was due",
    registry=registry,
)
_labels: Final = FunctionLabels()
_FIRST: Final = frozenset({Transition.CLAIM, Transition.START})

_created_of: Final = functools.cache(_created.labels)
_finished_of: Final = functools.cache(_finished.labels)


def count_transition(transition: Transition, operation: Operation) -> None:
    """Count a committed transition that is not a progress, under the function."""
    function = _labels.label(operation.function)
    if transition is Transition.CREATE:
        _created_of(function).inc()
    elif operation.status in TERMINAL:
        _finished_of(function, operation.status).inc()
    elif transition in _FIRST:
        _observe_claim_wait(operation)
    elif transition is Transition.RETRY:
        _retried.labels(function).inc()


def count_lost_lease(operation: Operation) -> None:
    """Count a lease that expired before the operation ended."""
    _leases_lost.labels(_labels.label(operation.function)).inc()


def _observe_claim_wait(operation: Operation) -> None:
    if operation.attempt == 1 and operation.start_time:
        begun = max(operation.create_time, operation.schedule_time or operation.create_time)
        _claim_waits.observe(max(0.0, (operation.start_time - begun).total_seconds()))


class WorkloadGauges:
    """The gauges of the workload of the database."""

    def __init__(self) -> None:
        """Start without any function."""
        self._active: set[tuple[str, str]] = set()
        self._pending: set[str] = set()

    def show(self, workload: Workload) -> None:
        """Set the gauges; a function without active operations has 0."""
        active = dict.fromkeys(self._active, 0)
        ages = dict.fromkeys(self._pending, 0.0)
        for load in workload.functions:
            if not any(load.active.values()):
                continue
            function = _labels.label(load.function)
            for status in ACTIVE:
                key = (function, status.value)
                active[key] = active.get(key, 0) + load.active.get(status, 0)
            age = load.oldest_pending_age.total_seconds()
            ages[function] = max(ages.get(function, 0.0), age)
        for key, count in active.items():
            _active.labels(*key).set(count)
        for function, seconds in ages.items():
            _oldest_pending.labels(function).set(seconds)
        webhook_overdue.set(workload.webhook_overdue.total_seconds())
        self._active, self._pending = set(active), set(ages)
