"""The sweeper of a running service, which ends overdue work without a call."""

from datetime import timedelta

import pytest
from google.protobuf import duration_pb2
from grpc import StatusCode

from milepost.domain.operation import OperationId
from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests import factories
from tests.contract.stored import Stored
from tests.e2e.refusals import refused
from tests.e2e.rpcs import BROKEN
from tests.e2e.test_claim import claim
from tests.waiting import eventually

SOON = 5.0
TTL = duration_pb2.Duration(seconds=3600)


@pytest.fixture
def function(alice):
    """Return the name of a function that no other test uses."""
    return f"sweeps.{alice.subject}"


def age(service, operation, **by):
    """Move every time of the operation into the past."""
    factories.age(service.engine, OperationId(operation.id), timedelta(**by))


def test_late_worker_is_fenced_off(any_service, alice, worker, function):
    """A worker past its lease loses the operation, another ends it, and its writes are aborted."""
    alice.create(function=function)
    (claimed,) = claim(worker, function)
    waiting = worker.future("ClaimOperations", functions=[function])
    age(any_service, claimed, seconds=40)
    (again,) = waiting.result().operations
    assert (again.id, again.attempt) == (claimed.id, 2)
    done = worker.transition("CompleteOperation", again.id, attempt=2)
    for method, more in (
        ("UpdateProgress", {}),
        ("CompleteOperation", {}),
        ("FailOperation", {"errors": [BROKEN]}),
    ):
        with refused(StatusCode.ABORTED, "STALE_ATTEMPT") as refusal:
            worker.transition(method, claimed.id, attempt=1, **more)
        assert refusal.facts == {"expected": "1", "actual": "2"}
    assert alice.get(claimed.id) == done


def test_last_lost_lease_fails_the_operation(any_service, alice, worker, function):
    """An operation that loses the lease of its last attempt fails with LEASE_LOST."""
    alice.create(function=function, max_attempts=1)
    (claimed,) = claim(worker, function)
    age(any_service, claimed, seconds=40)
    eventually(
        lambda: alice.get(claimed.id).status == pb.OPERATION_STATUS_FAILED,
        within=SOON,
        what="it is abandoned",
    )
    assert [error.code for error in alice.get(claimed.id).errors] == ["LEASE_LOST"]
    assert (
        any_service.logged(transition="abandon", operation_id=claimed.id)["principal"] == "milepost"
    )


def test_nothing_stays_processing_past_its_time(any_service, alice, function):
    """A processing operation past its expire_time fails with EXPIRED without a call."""
    operation = alice.create_in("PROCESSING", function=function, ttl=TTL)
    age(any_service, operation, hours=2)
    eventually(
        lambda: alice.get(operation.id).status == pb.OPERATION_STATUS_FAILED,
        within=SOON,
        what="it is expired",
    )
    assert [error.code for error in alice.get(operation.id).errors] == ["EXPIRED"]


def test_clean_up_by_an_admin(unswept):
    """A cleanup of an admin returns the number of operations, as a preview and for real."""
    alice, admin = unswept.client("alice"), unswept.client("root", roles=("ADMIN",))
    stored = Stored(unswept.engine)
    operations = [alice.create(ttl=TTL) for _ in range(3)]
    for operation in operations:
        age(unswept, operation, hours=2)
    preview = admin.call("PurgeExpiredOperations", dry_run=True)
    assert preview.purged_count == 3
    assert all(stored.operation(operation.id) for operation in operations)
    done = admin.call("PurgeExpiredOperations")
    assert done.purged_count == 3
    assert not done.more_remaining
    assert not any(stored.operation(operation.id) for operation in operations)
    assert admin.call("PurgeExpiredOperations", dry_run=True).purged_count == 0
    assert unswept.metric("milepost_transitions_total", transition="purge") == 3
    with refused(StatusCode.NOT_FOUND, "OPERATION_EXPIRED"):
        alice.get(operations[0].id)


def test_clean_up_is_for_admins(alice, worker):
    """Only an admin can clean up."""
    for client in (alice, worker):
        with refused(StatusCode.PERMISSION_DENIED):
            client.call("PurgeExpiredOperations")


def test_active_operation_has_a_next_step(alice, worker, function):
    """Every active operation has a next step and the deadline of it; an ended one has neither."""
    created = alice.create(function=function)
    assert created.next_step == pb.NEXT_STEP_CLAIM
    assert created.next_step_deadline == created.expire_time
    (claimed,) = claim(worker, function)
    assert claimed.next_step == pb.NEXT_STEP_RENEWAL
    assert claimed.next_step_deadline == claimed.lease_expire_time
    done = worker.transition("CompleteOperation", claimed.id, attempt=1)
    assert done.next_step == pb.NEXT_STEP_UNSPECIFIED
    assert not done.HasField("next_step_deadline")


def test_no_operation_stays_overdue_in_a_healthy_service(any_service, alice, worker, function):
    """The metric of overdue operations exists, and is 0 again after a lost lease."""
    alice.create(function=function)
    (claimed,) = claim(worker, function)
    lost = any_service.metric("milepost_leases_lost_total")
    age(any_service, claimed, seconds=40)
    eventually(
        lambda: any_service.metric("milepost_leases_lost_total") > lost,
        within=SOON,
        what="the lease is counted as lost",
    )
    eventually(
        lambda: (
            "milepost_operations_overdue{" in any_service.probe("/metrics")[1]
            and any_service.metric("milepost_operations_overdue") == 0
        ),
        within=2 * SOON,
        what="nothing is overdue",
    )
