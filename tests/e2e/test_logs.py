"""The log lines of changes and refusals, and the data that no line contains."""

import uuid

import pytest
from google.protobuf import any_pb2, struct_pb2
from grpc import StatusCode

from milepost.domain.operation import new_operation_id
from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.client import FUNCTION, Client
from tests.e2e.refusals import refused
from tests.e2e.rpcs import RPCS

CANARY = "canary7f3a"


def test_create_is_logged(any_service, alice):
    """A create is logged with id, function, ttl and expiry."""
    operation = alice.create(ttl={"seconds": 3600})
    line = any_service.logged(
        event="operation changed", operation_id=operation.id, transition="create"
    )
    assert line["level"] == "info"
    assert (line["function"], line["ttl_s"]) == (FUNCTION, 3600.0)
    expire_time = operation.expire_time.ToDatetime().isoformat()
    assert line["expire_time"].startswith(expire_time)
    assert line["principal"] == alice.subject
    assert line["credential_id"] == alice.key.split("_")[1]
    assert len(line["trace_id"]) == 32


@pytest.mark.parametrize(
    ("status", "transitions"),
    [
        ("COMPLETED", ["create", "start", "complete"]),
        ("FAILED", ["create", "start", "fail"]),
        ("CANCELLED", ["create", "start", "cancel"]),
    ],
)
def test_every_change_of_status_is_logged_once(any_service, alice, status, transitions):
    """Every change of status has one line, and a repeated call adds none."""
    operation = alice.create_in(status)
    alice.call("DeleteOperation", operation_id=operation.id, request_id="once")
    any_service.logged(event="operation changed", operation_id=operation.id, transition="purge")
    lines = any_service.log_lines(event="operation changed", operation_id=operation.id)
    assert [line["transition"] for line in lines] == [*transitions, "purge"]
    assert [line["status"] for line in lines[:-1]][-1] == status
    assert [line["revision"] for line in lines[:-1]] == [1, 2, 3]


def test_refused_access_is_logged(any_service, alice):
    """An attempt on a foreign operation is a warning with id, requester and action."""
    operation = alice.create()
    bob = any_service.client("bob")
    with refused(StatusCode.NOT_FOUND):
        bob.transition("CancelOperation", operation.id)
    line = any_service.logged(event="call refused", operation_id=operation.id)
    assert line["level"] == "warning"
    assert line["principal"] == bob.subject
    assert line["method"] == "milepost.v1.OperationService/CancelOperation"
    assert (line["code"], line["reason"]) == ("NOT_FOUND", "OPERATION_NOT_FOUND")


def test_every_kind_of_refusal_is_logged(any_service, alice):
    """Every refusal is logged with reason, id, principal and method."""
    operation, missing = alice.create(), new_operation_id()
    for method, operation_id, code, reason in (
        ("GetOperation", uuid.uuid4().hex[:12], "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("GetOperation", missing, "NOT_FOUND", "OPERATION_NOT_FOUND"),
        ("CompleteOperation", operation.id, "FAILED_PRECONDITION", "ILLEGAL_TRANSITION"),
    ):
        with refused(StatusCode[code], reason):
            alice.call(method, operation_id=operation_id)
        line = any_service.logged(operation_id=operation_id, reason=reason)
        assert (line["event"], line["level"]) == ("call refused", "warning")
        assert line["principal"] == alice.subject
        assert line["method"].endswith(f"/{method}")
        assert line["code"] == code


def test_decrease_is_logged_with_both_values(any_service, alice):
    """A decrease of progress is a warning with both values."""
    operation = alice.create_in("PROCESSING")
    alice.transition("UpdateProgress", operation.id, progress=0.5)
    with refused(StatusCode.INVALID_ARGUMENT, "PROGRESS_DECREASE"):
        alice.transition("UpdateProgress", operation.id, progress=0.25)
    line = any_service.logged(operation_id=operation.id, reason="PROGRESS_DECREASE")
    assert line["level"] == "warning"
    assert (line["fact_current"], line["fact_requested"]) == ("0.5", "0.25")


def test_unauthenticated_calls_are_logged(any_service):
    """A call without a credential is a warning without a principal."""
    (get,) = (rpc for rpc in RPCS if rpc.method == "GetOperation")
    missing = new_operation_id()
    with refused(StatusCode.UNAUTHENTICATED):
        get.send(any_service.channel, get.about(missing), ())
    line = any_service.logged(reason="UNAUTHENTICATED", operation_id=missing)
    assert line["principal"] is None
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert any_service.log_lines(operation_id=missing) == [line]


def test_every_line_is_json(any_service):
    """Every line is one JSON object with event, level and time."""
    for line in any_service.log_lines():
        assert {"event", "level", "timestamp"} <= line.keys()


def test_secrets_and_payloads_never_reach_the_log(any_service, alice):
    """No API key, metadata value, result, error text, message or header is in any line."""
    canary = struct_pb2.Struct()
    canary.update({CANARY: {"deep": [CANARY]}})
    result = any_pb2.Any(type_url=f"example.com/{CANARY}", value=CANARY.encode())
    errors = [pb.OperationError(code=CANARY, message=CANARY, source=CANARY, details=canary)]
    done = alice.create(metadata=canary, version=CANARY, request_id=CANARY)
    alice.transition("StartOperation", done.id, worker=CANARY)
    alice.transition("UpdateProgress", done.id, message=CANARY)
    alice.transition("CompleteOperation", done.id, result=result)
    failed = alice.create_in("PROCESSING", metadata=canary)
    alice.transition("FailOperation", failed.id, errors=errors)
    cancelled = alice.create(metadata=canary)
    alice.transition("CancelOperation", cancelled.id, reason=CANARY)
    # Refused calls carry them too.
    for method, fields in (
        ("CompleteOperation", {"result": result}),
        ("FailOperation", {"errors": errors}),
        ("UpdateProgress", {"message": CANARY}),
        ("CancelOperation", {"reason": CANARY}),
    ):
        with refused(StatusCode.FAILED_PRECONDITION):
            alice.call(method, operation_id=done.id, **fields)
    with refused(StatusCode.INVALID_ARGUMENT):
        alice.create(metadata=canary, version=CANARY + "\n", original_request_id=CANARY * 100)
    with refused(StatusCode.INVALID_ARGUMENT):
        alice.call("ListOperations", page_token=CANARY)
    for scheme in ("Basic", "Bearer"):
        stranger = Client(any_service.channel, "unknown", frozenset(), "")
        stranger.metadata = (("authorization", f"{scheme} {CANARY}"), ("x-secret", CANARY))
        for rpc in RPCS:
            with refused(StatusCode.UNAUTHENTICATED):
                stranger.send(rpc, rpc.request())
    last = new_operation_id()
    with refused(StatusCode.NOT_FOUND):
        alice.get(last)
    any_service.logged(operation_id=last)
    log = any_service.log()
    assert alice.key not in log
    assert alice.key.split("_")[2] not in log
    assert CANARY not in log


def test_oversized_ids_are_cut_in_the_log(any_service, alice):
    """An id of the wrong length is truncated in the log."""
    huge = alice.subject + "x" * 1_000_000
    size = len(any_service.log())
    with refused(StatusCode.INVALID_ARGUMENT):
        alice.get(huge)
    last = new_operation_id()
    with refused(StatusCode.NOT_FOUND):
        alice.get(last)
    any_service.logged(operation_id=last)
    assert len(any_service.log()) < size + 10_000
