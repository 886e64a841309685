"""GetOperation over the wire."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import any_pb2, struct_pb2
from grpc import StatusCode

from milepost.domain.operation import OperationId, new_operation_id
from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests import factories
from tests.e2e.client import FUNCTION
from tests.e2e.refusals import refused
from tests.e2e.rpcs import BROKEN


def test_pending_operation_is_read(alice):
    """A pending operation shows its id, status and function."""
    operation = alice.create()
    found = alice.get(operation.id)
    assert (found.id, found.function) == (operation.id, FUNCTION)
    assert found.status == pb.OPERATION_STATUS_PENDING
    assert found == operation


def test_progress_is_read(alice):
    """A processing operation shows its progress."""
    operation = alice.create_in("PROCESSING")
    updated = alice.transition("UpdateProgress", operation.id, progress=0.65, message="at it")
    found = alice.get(operation.id)
    assert (found.progress, found.progress_message) == (0.65, "at it")
    assert found.status == pb.OPERATION_STATUS_PROCESSING
    assert found == updated


def test_result_is_read(alice):
    """A completed operation shows its result and its complete_time."""
    result = any_pb2.Any()
    result.Pack(struct_pb2.Value(number_value=42))
    operation = alice.create_in("PROCESSING")
    alice.transition("CompleteOperation", operation.id, result=result)
    found = alice.get(operation.id)
    assert found.status == pb.OPERATION_STATUS_COMPLETED
    assert found.result == result
    assert found.HasField("complete_time")
    assert not found.HasField("cancel_time")


def test_failure_is_a_successful_answer(alice):
    """A read of a failed operation succeeds, and has its error."""
    operation = alice.create_in("FAILED")
    found = alice.get(operation.id)
    assert found.status == pb.OPERATION_STATUS_FAILED
    assert list(found.errors) == [BROKEN]


def test_cancel_time_is_read(alice):
    """A cancelled operation shows its cancel_time."""
    operation = alice.create_in("CANCELLED")
    found = alice.get(operation.id)
    assert found.status == pb.OPERATION_STATUS_CANCELLED
    assert datetime.now(UTC) - found.cancel_time.ToDatetime(tzinfo=UTC) < timedelta(seconds=10)


def test_unknown_id_is_not_found(alice, admin):
    """An unknown id is NOT_FOUND, and the refusal names it."""
    missing = new_operation_id()
    for client in (alice, admin):
        with refused(StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND") as refusal:
            client.get(missing)
        assert missing in refusal.message
        assert refusal.facts == {"operation_id": missing}


@pytest.mark.parametrize("status", ["PENDING", "COMPLETED", "FAILED", "CANCELLED"])
def test_expired_operation_is_gone_before_the_sweep(any_service, alice, worker, status):
    """An expired operation that is not processing is missing for every read and transition."""
    operation = alice.create_in(status)
    factories.age(any_service.engine, OperationId(operation.id), timedelta(days=2))
    with refused(StatusCode.NOT_FOUND, "OPERATION_EXPIRED"):
        alice.get(operation.id)
    with refused(StatusCode.NOT_FOUND, "OPERATION_EXPIRED"):
        alice.transition("CancelOperation", operation.id)
    with refused(StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND"):
        worker.get(operation.id)
    assert not alice.call("ListOperations").operations


def test_expired_work_can_be_finished(unswept):
    """A processing operation past its ttl can be finished until it is swept."""
    alice, worker = unswept.client("alice"), unswept.worker()
    operation = alice.create_in("PROCESSING")
    factories.age(unswept.engine, OperationId(operation.id), timedelta(days=2))
    assert alice.get(operation.id).status == pb.OPERATION_STATUS_PROCESSING
    done = worker.transition("CompleteOperation", operation.id)
    assert alice.get(operation.id) == done
