"""StartOperation and the transitions that end an operation: complete, fail, cancel, delete."""

import math
import os
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import any_pb2, struct_pb2, wrappers_pb2
from grpc import StatusCode

from milepost.domain.operation import OperationId, new_operation_id
from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.refusals import refused

MIB = 1_048_576
SECOND = timedelta(seconds=1)


def packed(message) -> any_pb2.Any:
    """Return the message, packed."""
    result = any_pb2.Any()
    result.Pack(message)
    return result


def struct(**fields) -> struct_pb2.Struct:
    """Return a Struct."""
    made = struct_pb2.Struct()
    made.update(fields)
    return made


def error(code="BROKEN", message="it broke", **more) -> pb.OperationError:
    """Return a stored failure."""
    return pb.OperationError(code=code, message=message, **more)


# --- start ---


def test_start(alice, worker):
    """A started operation has its start time, attempt and worker, and its metadata."""
    operation = alice.create(metadata=struct(a=1))
    started = worker.transition("StartOperation", operation.id, worker="machine-7")
    assert started.status == pb.OPERATION_STATUS_PROCESSING
    assert (started.revision, started.attempt, started.worker) == (2, 1, "machine-7")
    assert started.HasField("start_time")
    assert not started.HasField("progress")
    assert not started.HasField("progress_time")
    assert not started.HasField("lease_expire_time")
    assert started.metadata == operation.metadata
    assert alice.get(operation.id) == started


def test_worker_is_its_subject_unless_it_says_otherwise(alice, worker):
    """A start without the name of a worker stores its subject."""
    started = worker.transition("StartOperation", alice.create().id)
    assert started.worker == worker.subject


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 256])
def test_worker_names(alice, name):
    """The name of a worker is one line of 1 to 255 characters."""
    operation = alice.create()
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.transition("StartOperation", operation.id, worker=name)
    assert set(refusal.violations) == {"worker"}
    assert alice.transition("StartOperation", operation.id, worker="w" * 255).worker == "w" * 255


@pytest.mark.parametrize(
    "method", ["StartOperation", "CompleteOperation", "FailOperation", "CancelOperation"]
)
def test_unknown_operation(alice, method):
    """A transition of an unknown operation is not found."""
    more = {"errors": [error()]} if method == "FailOperation" else {}
    with refused(StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND"):
        alice.transition(method, new_operation_id(), **more)


# --- complete ---


@pytest.fixture
def processing(alice):
    """An operation at 0.6, with metadata."""
    operation = alice.create(metadata=struct(a=1))
    alice.transition("StartOperation", operation.id)
    alice.transition("UpdateProgress", operation.id, progress=0.6, message="at it")
    return alice.get(operation.id)


def test_complete(alice, processing):
    """A completed operation has progress 1.0, its result and complete_time, and keeps the rest."""
    result = packed(struct_pb2.Value(string_value="result"))
    done = alice.transition("CompleteOperation", processing.id, result=result)
    assert done.status == pb.OPERATION_STATUS_COMPLETED
    assert (done.progress, done.result) == (1.0, result)
    assert (done.start_time, done.metadata) == (processing.start_time, processing.metadata)
    assert done.complete_time.ToNanoseconds() >= done.start_time.ToNanoseconds()
    assert done.revision == processing.revision + 1
    kept = done.expire_time.ToNanoseconds() - done.complete_time.ToNanoseconds()
    assert kept == done.ttl.ToNanoseconds()
    assert alice.get(processing.id) == done


def test_no_result_is_absent(alice, processing):
    """A completion without a result leaves the result absent, not empty."""
    done = alice.transition("CompleteOperation", processing.id)
    assert not done.HasField("result")


RESULTS = {
    "empty-struct": packed(struct_pb2.Struct()),
    "struct": packed(struct(a={"b": [1, None, "x"]})),
    "null": packed(struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)),
    "scalar": packed(struct_pb2.Value(string_value="result")),
    "wrapper": packed(wrappers_pb2.BytesValue(value=bytes(range(256)))),
    "any-in-any": packed(packed(wrappers_pb2.StringValue(value="x"))),
    "own-type": packed(pb.Operation(id="op", progress=0.5)),
    "unknown-type": any_pb2.Any(type_url="example.com/unknown.type.This", value=os.urandom(1000)),
    "no-message": any_pb2.Any(type_url="type.googleapis.com/google.protobuf.Value", value=b"\xff"),
    "zeros": any_pb2.Any(type_url="x/y", value=b"\0" * 100),
}


@pytest.mark.parametrize("name", RESULTS)
def test_result_is_byte_identical(alice, processing, name):
    """A result of any packed type is returned byte for byte."""
    result = RESULTS[name]
    for answer in (
        alice.transition("CompleteOperation", processing.id, result=result),
        alice.get(processing.id),
        alice.call("ListOperations", view="OPERATION_VIEW_FULL").operations[0],
    ):
        assert answer.HasField("result")
        assert (answer.result.type_url, answer.result.value) == (result.type_url, result.value)


def test_result_size(alice, processing):
    """A result of exactly 1 MiB is accepted, one byte more refused with both sizes."""
    result = any_pb2.Any(type_url="x/y", value=os.urandom(MIB) + b"x")
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.transition("CompleteOperation", processing.id, result=result)
    assert set(refusal.violations) == {"result"}
    assert str(MIB) in refusal.violations["result"]
    assert str(MIB + 1) in refusal.violations["result"]
    assert alice.get(processing.id) == processing
    result.value = result.value[:MIB]
    alice.transition("CompleteOperation", processing.id, result=result)
    assert alice.get(processing.id).result == result


@pytest.mark.parametrize(
    "type_url", ["", "a\0b", "a\nb", "x" * 2_049], ids=["empty", "nul", "newline", "long"]
)
def test_result_has_a_type(alice, processing, type_url):
    """A result without a proper type_url is refused, and nothing changes."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.transition(
            "CompleteOperation",
            processing.id,
            result=any_pb2.Any(type_url=type_url, value=b"x"),
        )
    assert set(refusal.violations) == {"result"}
    assert alice.get(processing.id) == processing


# --- fail ---


def test_fail(alice, processing):
    """A failed operation has its errors and complete_time, and keeps progress and the rest."""
    failed = alice.transition("FailOperation", processing.id, errors=[error()])
    assert failed.status == pb.OPERATION_STATUS_FAILED
    assert (failed.progress, list(failed.errors)) == (0.6, [error()])
    assert (failed.start_time, failed.metadata) == (processing.start_time, processing.metadata)
    assert failed.HasField("complete_time")
    kept = failed.expire_time.ToNanoseconds() - failed.complete_time.ToNanoseconds()
    assert kept == failed.ttl.ToNanoseconds()
    assert alice.get(processing.id) == failed


def test_pending_operation_may_fail(alice):
    """A worker can fail a pending operation, which then has no start time."""
    failed = alice.transition("FailOperation", alice.create().id, errors=[error()])
    assert failed.status == pb.OPERATION_STATUS_FAILED
    assert not failed.HasField("start_time")
    assert not failed.HasField("progress")


def test_errors_are_kept_in_order(alice, processing):
    """All errors are kept, in order, with code, message, source and details."""
    errors = [
        error("Z_LAST", "zuletzt", source="frame 7", details=struct(n=1, deep={"x": [None]})),
        error("A", "漢字\n\0", source=""),
        error("A", "漢字\n\0", details=struct()),
    ]
    alice.transition("FailOperation", processing.id, errors=errors)
    assert list(alice.get(processing.id).errors) == errors


@pytest.mark.parametrize(
    ("errors", "fields"),
    [
        pytest.param([], {"errors"}, id="none"),
        pytest.param([error("", "m")], {"errors[0].code"}, id="no-code"),
        pytest.param([error("C", " ")], {"errors[0].message"}, id="blank-message"),
        pytest.param(
            [error(), error("", "")], {"errors[1].code", "errors[1].message"}, id="second"
        ),
        pytest.param(
            [error(details=struct(n=math.nan))], {"errors[0].details"}, id="details-not-json"
        ),
    ],
)
def test_errors_are_required(alice, processing, errors, fields):
    """A failure needs at least one error, each with a code and a message."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.transition("FailOperation", processing.id, errors=errors)
    assert set(refusal.violations) == fields
    assert alice.get(processing.id) == processing


def test_errors_size(alice, processing):
    """Errors of exactly 1 MiB together are accepted, one byte more is refused."""
    errors = [error(message="x" * (MIB // 2)), error(message="x")]
    errors[1].message = "x" * (MIB // 2 - 100)
    spare = MIB - sum(item.ByteSize() for item in errors)
    errors[1].message += "x" * spare
    assert sum(item.ByteSize() for item in errors) == MIB
    errors[1].message += "x"
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.transition("FailOperation", processing.id, errors=errors)
    assert str(MIB) in refusal.violations["errors"]
    assert str(MIB + 1) in refusal.violations["errors"]
    errors[1].message = errors[1].message[:-1]
    alice.transition("FailOperation", processing.id, errors=errors)


# --- cancel ---


@pytest.mark.parametrize("status", ["PENDING", "PROCESSING"])
def test_cancel(alice, status):
    """A cancelled operation has its status, and a cancel_time within a second of now."""
    operation = alice.create_in(status)
    before = datetime.now(UTC)
    cancelled = alice.transition("CancelOperation", operation.id, reason="changed my mind")
    after = datetime.now(UTC)
    assert cancelled.status == pb.OPERATION_STATUS_CANCELLED
    assert cancelled.id == operation.id
    assert before - SECOND < cancelled.cancel_time.ToDatetime(tzinfo=UTC) < after + SECOND
    assert cancelled.revision == operation.revision + 1
    assert alice.get(operation.id) == cancelled


def test_cancel_keeps_the_other_fields(alice, processing):
    """A cancel keeps progress, message, metadata and times."""
    cancelled = alice.transition("CancelOperation", processing.id)
    assert processing.HasField("next_step_deadline")
    assert not cancelled.next_step
    for field in (
        "status",
        "cancel_time",
        "revision",
        "expire_time",
        "next_step",
        "next_step_deadline",
    ):
        cancelled.ClearField(field)
        processing.ClearField(field)
    assert cancelled == processing


def test_reason_is_kept_with_the_event(alice, stored):
    """The reason of a cancel has up to 1,000 characters and is kept with its event."""
    operation = alice.create()
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.transition("CancelOperation", operation.id, reason="x" * 1_001)
    assert set(refusal.violations) == {"reason"}
    alice.transition("CancelOperation", operation.id, reason="x" * 1_000)
    assert stored.events(OperationId(operation.id))[-1]["reason"] == "x" * 1_000


def test_cancelled_work_is_refused(alice, worker):
    """A write of a worker to a cancelled operation is refused, and its result is not stored."""
    operation = alice.create_in("CANCELLED")
    for method in ("CompleteOperation", "UpdateProgress"):
        with refused(StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION") as refusal:
            worker.transition(method, operation.id)
        assert refusal.facts["status"] == "CANCELLED"
    assert alice.get(operation.id) == operation


def test_completed_result_outlives_a_cancel(alice, processing):
    """A cancel after the completion is refused, and the result is kept."""
    done = alice.transition("CompleteOperation", processing.id, result=RESULTS["struct"])
    with refused(StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION") as refusal:
        alice.transition("CancelOperation", processing.id)
    assert refusal.facts["status"] == "COMPLETED"
    assert alice.get(processing.id) == done


# --- delete ---


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "CANCELLED"])
def test_delete(alice, stored, status):
    """A deleted operation is missing for every read, and only its events are left."""
    operation = alice.create_in(status)
    alice.call("DeleteOperation", operation_id=operation.id)
    with refused(StatusCode.NOT_FOUND, "OPERATION_DELETED"):
        alice.get(operation.id)
    assert not alice.call("ListOperations").operations
    row, events, _ = stored.everything(OperationId(operation.id))
    assert row is None
    assert events[-1]["type"] == "operation.deleted"
    assert events[-1]["actor"] == alice.subject


def test_deleted_request_id_is_free(alice):
    """After a delete, the request_id of the create makes a new operation."""
    first = alice.create(request_id="r")
    alice.transition("CancelOperation", first.id)
    alice.call("DeleteOperation", operation_id=first.id)
    second = alice.call("CreateOperation", function="audio.mix", request_id="r")
    assert not second.replayed
    assert second.operation.id != first.id
