"""The next step of an operation and its deadline."""

import dataclasses
from datetime import timedelta

import pytest

from milepost.api.messages import NEXT_STEP_NUMBERS
from milepost.domain.expectation import Expectation, NextStep, expectation
from milepost.domain.operation import Operation, Status
from milepost.domain.transitions import ACTIVE
from tests import factories

FIELDS = {field.name for field in dataclasses.fields(Operation)}
LEASED_UNTIL = factories.FAR_AWAY - timedelta(days=1)


def operation(status: Status, **overrides: object) -> Operation:
    """Return an operation in `status`."""
    row = {k: v for k, v in factories.row(status).items() if k in FIELDS}
    payloads = {"result": None, "errors": (), "checkpoint": None}
    policy = {"retry_policy": factories.RETRY_POLICY}
    return Operation(**{**row, **payloads, **policy, "status": status, **overrides})


def test_pending_operation_waits_for_a_worker():
    """A pending operation must be claimed or started before it expires."""
    assert expectation(operation(Status.PENDING)) == Expectation(
        step=NextStep.CLAIM, deadline=factories.FAR_AWAY
    )


def test_leased_operation_waits_for_its_renewal():
    """The worker of a leased operation must renew the lease before it runs out."""
    leased = operation(Status.PROCESSING, lease_expire_time=LEASED_UNTIL)
    assert expectation(leased) == Expectation(step=NextStep.RENEWAL, deadline=LEASED_UNTIL)


SOONER, LATER = (factories.FAR_AWAY + timedelta(hours=hours) for hours in (-1, 1))


@pytest.mark.parametrize(
    ("clock", "deadline"), [(SOONER, SOONER), (LATER, factories.FAR_AWAY)], ids=["sooner", "later"]
)
@pytest.mark.parametrize(
    ("status", "name", "step"),
    [
        (Status.PENDING, "queue_expire_time", NextStep.CLAIM),
        (Status.PROCESSING, "run_expire_time", NextStep.END),
        (Status.PROCESSING, "cancel_expire_time", NextStep.END),
    ],
)
def test_earliest_clock_is_the_deadline(status, name, step, clock, deadline):
    """The deadline is the end of a timeout or a grace, unless the operation expires first."""
    found = expectation(operation(status, **{name: clock}))
    assert found == Expectation(step=step, deadline=deadline)


@pytest.mark.parametrize("lease", [None, factories.FAR_AWAY + timedelta(hours=1)])
def test_operation_waits_for_its_end(lease):
    """Work without a lease, or with a lease beyond its expiry, must end before it expires."""
    started = operation(Status.PROCESSING, lease_expire_time=lease)
    assert expectation(started) == Expectation(step=NextStep.END, deadline=factories.FAR_AWAY)


@pytest.mark.parametrize("status", Status)
def test_only_active_operations_wait(status):
    """Active operations have a next step, and terminal ones do not."""
    assert (expectation(operation(status)) is not None) == (status in ACTIVE)


def test_every_step_has_a_number():
    """The steps of the proto are those of the domain."""
    assert set(NEXT_STEP_NUMBERS) == set(NextStep)
    assert len(set(NEXT_STEP_NUMBERS.values())) == len(NextStep)
