"""Metrics of operations by function: counters, the wait for a claim, and the workload."""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from milepost import telemetry
from milepost.domain.operation import Operation, Principal, Role, Status
from milepost.domain.sweep import ABANDON, RELEASE, RETRY, TIME_OUT
from milepost.domain.transitions import Transition, TransitionResult
from milepost.domain.workload import FunctionLoad, Workload
from milepost.telemetry.function_labels import OTHER, FunctionLabels
from tests import factories

CALLER = Principal(subject="carol", roles=frozenset({Role.WORKER}), credential_id="c")
FUNCTION = "resize"
WAITS = "milepost_operation_claim_wait_seconds"
FIELDS = [field.name for field in dataclasses.fields(Operation)]


def operation(status, function=FUNCTION, **overrides):
    """Return an operation of the function in `status`."""
    row = factories.row(status, function=function)
    fields: dict[str, Any] = {name: row.get(name) for name in FIELDS}
    return Operation(**fields | {"status": status, "errors": ()} | overrides)


def sample(name, **labels):
    """Return the value of a metric, or 0 if it has none yet."""
    return telemetry.registry.get_sample_value(name, labels) or 0.0


def record(transition, status, **facts):
    """Record a committed transition of an operation that is now in `status`."""
    replayed = facts.pop("replayed", False)
    outcome = TransitionResult(operation(status, **facts), replayed=replayed)
    telemetry.record_transition(transition, outcome, CALLER, begun=0)


def counts():
    """Return the counters of the function."""
    finished = {
        status: sample("milepost_operations_finished_total", function=FUNCTION, status=status)
        for status in ("COMPLETED", "FAILED", "CANCELLED")
    }
    names = ("operations_created", "leases_lost", "attempts_retried")
    return finished | {each: sample(f"milepost_{each}_total", function=FUNCTION) for each in names}


@pytest.mark.parametrize(
    ("transition", "status", "counter"),
    [
        (Transition.CREATE, Status.PENDING, "operations_created"),
        (Transition.COMPLETE, Status.COMPLETED, "COMPLETED"),
        (Transition.FAIL, Status.FAILED, "FAILED"),
        (Transition.CANCEL, Status.CANCELLED, "CANCELLED"),
        (Transition.RETRY, Status.PENDING, "attempts_retried"),
        (Transition.RELEASE, Status.PENDING, None),
        (Transition.PROGRESS, Status.PROCESSING, None),
    ],
)
def test_transitions_are_counted_by_function(transition, status, counter):
    """A committed transition raises its counter only; a repetition raises none."""
    before = counts()
    record(transition, status)
    record(transition, status, replayed=True)
    assert counts() == before | ({counter: before[counter] + 1} if counter else {})


@pytest.mark.parametrize(
    ("sweep", "status", "counters"),
    [
        (RELEASE, Status.PENDING, {"leases_lost"}),
        (ABANDON, Status.FAILED, {"leases_lost", "FAILED"}),
        (RETRY, Status.PENDING, {"attempts_retried"}),
        (TIME_OUT, Status.FAILED, {"FAILED"}),
    ],
)
def test_sweeps_are_counted_by_function(sweep, status, counters):
    """A sweep counts the ends, lost leases and retries that it causes."""
    before = counts()
    telemetry.record_sweep(sweep, [operation(status)] * 3, begun=0)
    assert counts() == before | {name: before[name] + 3 for name in counters}


@pytest.mark.parametrize(
    ("facts", "waited"),
    [
        ({}, 90.0),
        ({"schedule_time": factories.LONG_AGO + timedelta(seconds=60)}, 30.0),
        ({"schedule_time": factories.LONG_AGO - timedelta(seconds=60)}, 90.0),
        ({"attempt": 2}, None),
    ],
)
@pytest.mark.parametrize("transition", [Transition.CLAIM, Transition.START])
def test_wait_for_the_first_attempt_is_observed(transition, facts, waited):
    """The wait is from the create or the scheduled time to the first attempt, once."""
    before = sample(f"{WAITS}_count"), sample(f"{WAITS}_sum")
    start = factories.LONG_AGO + timedelta(seconds=90)
    record(transition, Status.PROCESSING, **{"attempt": 1, "start_time": start} | facts)
    after = sample(f"{WAITS}_count"), sample(f"{WAITS}_sum")
    assert after == ((before[0] + 1, before[1] + waited) if waited else before)


def test_number_of_functions_is_bounded():
    """Functions beyond the bound share one label; those before keep theirs."""
    labels = FunctionLabels(max_functions=2)
    assert [labels.label(each) for each in "abcadb"] == ["a", "b", OTHER, "a", OTHER, "b"]


def load(function, pending, seconds):
    """Return the load of a function."""
    return FunctionLoad(
        function=function,
        active={Status.PENDING: pending, Status.PROCESSING: 1},
        oldest_pending_age=timedelta(seconds=seconds),
    )


def test_workload_is_shown():
    """The gauges show the last workload; a function that has no work any more shows 0."""
    gauges = telemetry.WorkloadGauges()

    def shown(function):
        names = {"function": function}
        return (
            sample("milepost_operations_active", **names, status="PENDING"),
            sample("milepost_operations_active", **names, status="PROCESSING"),
            sample("milepost_operations_oldest_pending_age_seconds", **names),
        )

    first = Workload(
        functions=[load("shown-1", 3, 60.0), load("shown-2", 5, 0.0)],
        webhook_overdue=timedelta(seconds=7),
    )
    gauges.show(first)
    assert (shown("shown-1"), shown("shown-2")) == ((3, 1, 60), (5, 1, 0))
    assert sample("milepost_webhooks_overdue_seconds") == 7
    gauges.show(Workload(functions=[load("shown-2", 1, 1.0)], webhook_overdue=timedelta()))
    assert (shown("shown-1"), shown("shown-2")) == ((0, 0, 0), (1, 1, 1))
    assert sample("milepost_webhooks_overdue_seconds") == 0


def test_idle_functions_take_no_label():
    """A function without active operations is not exported, so that it takes no other's label."""
    idle = FunctionLoad(
        function="idle",
        active=dict.fromkeys((Status.PENDING, Status.PROCESSING), 0),
        oldest_pending_age=timedelta(),
    )
    telemetry.WorkloadGauges().show(Workload(functions=[idle], webhook_overdue=timedelta()))
    page, _ = telemetry.metrics_page()
    assert b'function="idle"' not in page
