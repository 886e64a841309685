"""Metadata and error details nested as deep as they may be are readable in every answer."""

import pytest
from google.protobuf import duration_pb2, struct_pb2
from google.protobuf.json_format import MessageToDict
from grpc import StatusCode

from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.commands import milepost
from tests.e2e.refusals import refused

LEVELS = 20
WRAPS = {
    "objects": lambda value: struct_pb2.Value(struct_value=struct_pb2.Struct(fields={"k": value})),
    "lists": lambda value: struct_pb2.Value(list_value=struct_pb2.ListValue(values=[value])),
}
ALL = {"view": pb.OPERATION_VIEW_FULL}


def nested(levels, wrap="objects"):
    """Return a Struct with `levels` levels of objects, or of lists below the first."""
    value = struct_pb2.Value(string_value="x")
    for _ in range(levels - 1):
        value = WRAPS[wrap](value)
    return struct_pb2.Struct(fields={"k": value})


@pytest.mark.parametrize("wrap", WRAPS)
def test_deepest_content_is_readable_in_every_answer(any_service, alice, worker, function, wrap):
    """Metadata and details of 20 levels come back from every call, and on the command line."""
    deepest = nested(LEVELS, wrap)
    created = alice.create(function=function, metadata=deepest)
    (claimed,) = worker.call("ClaimOperations", functions=[function]).operations
    failure = pb.OperationError(code="DEEP", message="down there", details=deepest)
    failed = worker.transition("FailOperation", created.id, errors=[failure])
    at_once = duration_pb2.Duration()
    waited = alice.call("WaitOperation", operation_id=created.id, timeout=at_once).operation
    (listed,) = alice.call("ListOperations", function=function, **ALL).operations
    (watched,) = [item.operation for item in alice.watch(alice.channel, created.id)]
    ended = (failed, waited, listed, watched, alice.get(created.id))
    assert all(operation.metadata == deepest for operation in (created, claimed, *ended))
    assert all(operation.errors[0].details == deepest for operation in ended)

    access = {"MILEPOST_ADDRESS": any_service.address, "MILEPOST_API_KEY": alice.key}
    shown = milepost("ops", "get", created.id, "--output", "json", **access).json
    assert shown["metadata"] == shown["errors"][0]["details"] == MessageToDict(deepest)


@pytest.mark.parametrize("wrap", WRAPS)
def test_deeper_metadata_is_refused(alice, function, wrap):
    """Metadata of 21 levels is refused with its depth, and nothing is stored."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.create(function=function, metadata=nested(LEVELS + 1, wrap))
    assert "20 levels" in refusal.violations["metadata"]
    assert "found 21" in refusal.violations["metadata"]
    assert not alice.call("ListOperations", function=function).operations


def test_deeper_details_are_refused(alice, worker, function):
    """Error details of 21 levels are refused with their depth, and the operation goes on."""
    operation = alice.create_in("PROCESSING", function=function)
    failure = pb.OperationError(code="DEEP", message="too deep", details=nested(LEVELS + 1))
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        worker.transition("FailOperation", operation.id, errors=[failure])
    assert "found 21" in refusal.violations["errors[0].details"]
    assert alice.get(operation.id).status == pb.OPERATION_STATUS_PROCESSING


def test_undecodable_request_is_refused_with_the_cause(alice):
    """A request that is nested too deep to be decoded is refused, and says so."""
    below = b""
    for _ in range(40):  # a Value with a Struct with an entry of its fields with a Value
        below = _field(5, _field(1, _field(2, below)))
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.channel.unary_unary("/milepost.v1.OperationService/CreateOperation")(
            _field(4, _field(1, _field(2, below))), metadata=alice.metadata
        )
    assert "nested too deep" in refusal.violations["request"]


def _field(number, content):
    """Return a field of bytes as protobuf encodes it."""
    length = len(content)
    size = b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content
