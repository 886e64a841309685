"""google.longrunning.Operations over the wire, as AIP-151 and its stock clients need it."""

import time
from datetime import timedelta

import pytest
from google.longrunning import operations_proto_pb2 as lro
from google.protobuf import any_pb2, duration_pb2, struct_pb2
from google.rpc import code_pb2, error_details_pb2
from grpc import StatusCode

from milepost.domain.operation import OperationId
from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests import factories
from tests.e2e.refusals import refused
from tests.e2e.rpcs import BROKEN, BY_METHOD, CALL_SECONDS
from tests.e2e.service import Service

GET = BY_METHOD["GoogleGetOperation"]
WAIT = BY_METHOD["GoogleWaitOperation"]
SOON_S = 5.0


def named(operation) -> str:
    """Return the name of an operation."""
    return f"operations/{operation.id}"


def get(client, operation) -> lro.Operation:
    """Return the operation as Google's clients read it."""
    answer: lro.Operation = client.call("GoogleGetOperation", name=named(operation))
    return answer


def metadata_of(answer: lro.Operation) -> pb.OperationMetadata:
    """Return the metadata, which is always set and always of one type."""
    metadata = pb.OperationMetadata()
    assert answer.metadata.Unpack(metadata)
    return metadata


def error_info(answer: lro.Operation) -> error_details_pb2.ErrorInfo:
    """Return the ErrorInfo of the error."""
    info = error_details_pb2.ErrorInfo()
    assert answer.error.details[0].Unpack(info)
    return info


def test_active_operation_has_metadata_only(alice):
    """An active operation is not done, and its metadata shows its progress."""
    operation = alice.create_in("PROCESSING", version="2")
    updated = alice.transition("UpdateProgress", operation.id, progress=0.5, message="half")
    answer = get(alice, operation)
    assert answer.name == named(operation)
    assert not answer.done
    assert answer.WhichOneof("result") is None
    metadata = metadata_of(answer)
    for field in metadata.DESCRIPTOR.fields:
        assert getattr(metadata, field.name) == getattr(updated, field.name), field.name


def test_result_is_the_response(alice):
    """A completed operation is done; its response is the result byte for byte."""
    result = any_pb2.Any()
    result.Pack(struct_pb2.Struct(fields={"n": struct_pb2.Value(number_value=1)}))
    operation = alice.create_in("PROCESSING")
    alice.transition("CompleteOperation", operation.id, result=result)
    answer = get(alice, operation)
    assert answer.done
    assert answer.response == result
    assert metadata_of(answer).status == pb.OPERATION_STATUS_COMPLETED


def test_no_result_is_an_empty_struct(alice):
    """An operation that completed without a result has an empty Struct as its response."""
    answer = get(alice, alice.create_in("COMPLETED"))
    assert answer.done
    assert answer.WhichOneof("result") == "response"
    response = struct_pb2.Struct(fields={"to be": struct_pb2.Value()})
    assert answer.response.Unpack(response)
    assert not response.fields


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("FAILED_PRECONDITION", code_pb2.FAILED_PRECONDITION),
        ("CODEC_UNSUPPORTED", code_pb2.UNKNOWN),
        ("OK", code_pb2.UNKNOWN),
    ],
)
def test_failure_is_an_error(alice, code, expected):
    """A failed operation has the code of its first error by name, and all errors as details."""
    errors = [pb.OperationError(code=code, message="no such codec", source="input"), BROKEN]
    operation = alice.create_in("PROCESSING")
    alice.transition("FailOperation", operation.id, errors=errors)
    answer = get(alice, operation)
    assert answer.done
    assert (answer.error.code, answer.error.message) == (expected, "no such codec")
    info = error_info(answer)
    assert (info.reason, info.domain) == (code, "milepost")
    assert info.metadata == {"operation_id": operation.id}
    details = [pb.OperationError() for _ in errors]
    for packed, detail in zip(answer.error.details[1:], details, strict=True):
        assert packed.Unpack(detail)
    assert details == errors


def test_cancel_ends_with_code_1(alice):
    """A cancelled operation has the error code CANCELLED; a second cancel changes nothing."""
    operation = alice.create_in("PROCESSING")
    for _ in range(2):
        alice.call("GoogleCancelOperation", name=named(operation))
    answer = get(alice, operation)
    assert answer.done
    assert answer.error.code == code_pb2.CANCELLED
    assert error_info(answer).reason == "CANCELLED"
    assert alice.get(operation.id).revision == operation.revision + 1


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED"])
def test_cancel_of_an_ended_operation_has_no_effect(alice, status):
    """A cancel of an operation that has ended is OK, and changes nothing."""
    operation = alice.create_in(status)
    alice.call("GoogleCancelOperation", name=named(operation))
    assert alice.get(operation.id) == operation


def test_expiry_and_deletion(any_service, alice):
    """An active operation is not deleted; a deleted and an expired one are NOT_FOUND."""
    operation = alice.create_in("PROCESSING")
    with refused(StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"):
        alice.call("GoogleDeleteOperation", name=named(operation))
    alice.transition("CompleteOperation", operation.id)
    alice.call("GoogleDeleteOperation", name=named(operation))
    for method in ("GoogleGetOperation", "GoogleDeleteOperation"):
        with refused(StatusCode.NOT_FOUND, "OPERATION_DELETED"):
            alice.call(method, name=named(operation))
    expired = alice.create()
    factories.age(any_service.engine, OperationId(expired.id), timedelta(days=2))
    with refused(StatusCode.NOT_FOUND, "OPERATION_EXPIRED"):
        get(alice, expired)


def test_list_has_pages_and_filters(alice, function):
    """A list shows the caller's operations, newest first, page by page, by end and function."""
    done = [alice.create_in("COMPLETED", function=function) for _ in range(2)]
    active = alice.create(function=function)
    other = alice.create(function="another")

    def names(**fields):
        found, token = [], ""
        while True:
            page = alice.call("GoogleListOperations", page_size=2, page_token=token, **fields)
            found += [operation.name for operation in page.operations]
            token = page.next_page_token
            if not token:
                return found

    expected = [named(operation) for operation in (other, active, *reversed(done))]
    assert names() == names(name="operations") == expected
    assert names(name="operations", return_partial_success=True) == expected
    assert names(filter="done=false") == expected[:2]
    assert names(filter=f'metadata.function="{function}" AND done=true') == expected[2:]
    assert names(filter="metadata.status=PENDING") == expected[:2]
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        names(name="tenants/1", filter="done=no")
    assert set(refusal.violations) == {"name", "filter"}
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.call("GoogleListOperations", page_size=-1)
    assert set(refusal.violations) == {"page_size"}


@pytest.mark.parametrize("name", ["", "operations", "tenants/1/operations/x", f"op_{24 * '0'}"])
def test_other_names_are_refused(alice, name):
    """A name of another form is INVALID_ARGUMENT."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.call("GoogleGetOperation", name=name)
    assert set(refusal.violations) == {"name"}


def test_held_answer_comes_with_the_end(alice):
    """A get that prefers to wait is answered at the end, not at a change before it."""
    operation = alice.create()
    metadata = (*alice.metadata, ("prefer", "wait=15"))
    held = GET.on(alice.channel).future(
        GET.about(operation.id), metadata=metadata, timeout=CALL_SECONDS
    )
    started = alice.transition("StartOperation", operation.id)
    assert not held.done()
    start = time.monotonic()
    short = (*alice.metadata, ("prefer", "wait=1"))
    answer = GET.on(alice.channel)(GET.about(operation.id), metadata=short, timeout=CALL_SECONDS)
    assert time.monotonic() - start > 0.9
    assert not answer.done
    assert metadata_of(answer).revision == started.revision
    alice.transition("CompleteOperation", operation.id)
    assert held.result(SOON_S).done


def test_wait_ends_with_the_operation_or_the_timeout(alice):
    """WaitOperation answers at the end, or at the timeout with the operation as it stands."""
    operation = alice.create_in("PROCESSING")
    at_once = alice.call(
        "GoogleWaitOperation", name=named(operation), timeout=duration_pb2.Duration()
    )
    assert not at_once.done
    waiting = WAIT.on(alice.channel).future(
        lro.WaitOperationRequest(name=named(operation)),
        metadata=alice.metadata,
        timeout=CALL_SECONDS,
    )
    alice.transition("CompleteOperation", operation.id)
    assert waiting.result(SOON_S).done
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.call(
            "GoogleWaitOperation", name=named(operation), timeout=duration_pb2.Duration(seconds=-1)
        )
    assert set(refusal.violations) == {"timeout"}


def test_polls_above_the_limit_are_unavailable(database_url, tmp_path):
    """A poll above the rate limit is UNAVAILABLE with RetryInfo; other clients get the usual code.

    A stock future ends at RESOURCE_EXHAUSTED.
    """
    with Service(database_url, tmp_path, reads_per_minute="3") as service:
        alice = service.client("alice")
        operation = alice.create()
        for _ in range(3):
            get(alice, operation)
        with refused(StatusCode.UNAVAILABLE, "RATE_LIMITED") as refusal:
            get(alice, operation)
        assert refusal.retry_after > 0
        with refused(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"):
            alice.get(operation.id)
        line = service.logged(event="call refused", method=GET.name)
        assert line["code"] == "UNAVAILABLE"
