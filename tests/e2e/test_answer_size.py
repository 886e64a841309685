"""Answers that a client with the defaults of gRPC can receive, whatever they hold."""

import pytest
from google.protobuf import any_pb2, duration_pb2, struct_pb2

from milepost.gen.milepost.v1 import operation_pb2 as pb

MAX_BYTES = 3 * 1_048_576
FULL = pb.OPERATION_VIEW_FULL


def strings():
    """Return metadata of one long text."""
    return struct_pb2.Struct(fields={"k": struct_pb2.Value(string_value="x" * 60_000)})


def numbers():
    """Return metadata of which the message is much larger than its JSON."""
    made = struct_pb2.Struct()
    made.update({"k": [0] * 32_000})
    return made


def pages(client, **fields):
    """Return the operations of each page of a list in the FULL view."""
    found, token = [], ""
    while True:
        page = client.call("ListOperations", page_size=100, page_token=token, view=FULL, **fields)
        assert page.ByteSize() <= MAX_BYTES
        found.append(list(page.operations))
        token = page.next_page_token
        if not token:
            return found


@pytest.mark.parametrize(
    ("metadata", "count"), [(strings(), 80), (numbers(), 10)], ids=["strings", "numbers"]
)
def test_large_metadata_is_claimed_and_listed_in_parts(alice, worker, function, metadata, count):
    """Operations with large metadata are claimed and listed in several answers, each once."""
    created = {alice.create(function=function, metadata=metadata).id for _ in range(count)}
    listed = pages(alice, function=function)
    assert len(listed) > 1
    assert [operation.metadata for page in listed for operation in page] == [metadata] * count

    claimed: list[str] = []
    at_once = duration_pb2.Duration()
    while len(claimed) < count:
        claim = {"functions": [function], "max_operations": 100, "timeout": at_once}
        answer = worker.call("ClaimOperations", **claim)
        assert answer.ByteSize() <= MAX_BYTES
        claimed += [operation.id for operation in answer.operations]
        status = pb.OPERATION_STATUS_PROCESSING
        page = alice.call("ListOperations", function=function, statuses=[status], page_size=100)
        assert {operation.id for operation in page.operations} == set(claimed)
    assert (len(claimed), set(claimed)) == (count, created)


def test_large_results_are_listed_in_parts(alice, function):
    """60 results of 1 MiB are listed in pages of at most 3 MiB, with bounded memory."""
    result = any_pb2.Any(type_url="x/y", value=b"x" * 1_000_000)
    created = []
    for _ in range(60):
        operation = alice.create_in("PROCESSING", function=function)
        alice.transition("CompleteOperation", operation.id, result=result)
        created.append(operation.id)
    listed = pages(alice, function=function)
    assert [len(page) for page in listed] == [3] * 20
    assert sorted(operation.id for page in listed for operation in page) == sorted(created)
    (summary,) = [alice.call("ListOperations", function=function, page_size=100)]
    assert len(summary.operations) == 60
