"""CreateOperation over the wire."""

import math
import re
import string
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import duration_pb2, struct_pb2
from grpc import StatusCode

from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.client import FUNCTION
from tests.e2e.refusals import refused
from tests.e2e.service import Service

METADATA_BYTES = 65_536
DAY_S = 86_400


def seconds(count, nanos=0):
    """Return a duration."""
    return duration_pb2.Duration(seconds=count, nanos=nanos)


def struct(**fields):
    """Return a Struct."""
    made = struct_pb2.Struct()
    made.update(fields)
    return made


def owned(client):
    """Return the number of operations of the client."""
    return len(client.call("ListOperations").operations)


def test_created_operation_is_pending(alice):
    """A create answers with the stored operation: PENDING, revision 1, an id op_ and 24 hex."""
    before = datetime.now(UTC)
    response = alice.call("CreateOperation", function=FUNCTION)
    operation = response.operation
    assert re.fullmatch(r"op_[0-9a-f]{24}", operation.id)
    assert operation.status == pb.OPERATION_STATUS_PENDING
    assert (operation.revision, operation.attempt, operation.max_attempts) == (1, 0, 3)
    assert (operation.function, operation.owner) == (FUNCTION, alice.subject)
    assert not response.replayed
    created = operation.create_time.ToDatetime(tzinfo=UTC)
    assert abs(created - before) < timedelta(seconds=5)
    assert alice.get(operation.id) == operation
    assert owned(alice) == 1


def test_minimal_operation_has_nothing_else(alice):
    """Optional fields that were not given are absent, not empty or 0."""
    operation = alice.get(alice.create().id)
    given = {field.name for field, _ in operation.ListFields()}
    assert given == {
        "id",
        "function",
        "owner",
        "status",
        "create_time",
        "expire_time",
        "ttl",
        "retry_after",
        "revision",
        "max_attempts",
        "next_step",
        "next_step_deadline",
        "priority",
        "retry_policy",
    }
    assert not operation.HasField("progress")
    assert not operation.HasField("version")
    assert not operation.HasField("result")


def test_ids_differ(alice):
    """Three creates make three ids."""
    ids = {alice.create().id for _ in range(3)}
    assert len(ids) == 3
    assert all(operation_id.startswith("op_") for operation_id in ids)


def test_every_field_is_kept(alice):
    """Version, metadata and original_request_id are kept as given."""
    metadata = struct(
        nested={"list": [1, "zwei", None, True, {"x": {}}], "empty": {}, "none": []},
        unicode="żółć 漢字 🚀",
        number=0.1,
        large=2.0**60,
        nul="a\0b",
    )
    operation = alice.create(
        version="2", original_request_id="their-17", metadata=metadata, max_attempts=7
    )
    found = alice.get(operation.id)
    assert (found.version, found.original_request_id, found.max_attempts) == ("2", "their-17", 7)
    assert found.metadata == metadata


def test_empty_metadata_is_not_absent(alice):
    """An empty object as metadata is still an empty object."""
    found = alice.get(alice.create(metadata=struct()).id)
    assert found.HasField("metadata")
    assert not found.metadata.fields


def test_metadata_cannot_fake_facts(alice):
    """Metadata with the names of system fields stays plain data of the caller."""
    metadata = struct(
        owner="mallory", callback_url="https://evil.example/", expire_time="2000-01-01", id="x"
    )
    operation = alice.create(metadata=metadata)
    assert operation.owner == alice.subject
    assert not operation.HasField("callback_url")
    assert operation.expire_time.seconds - operation.create_time.seconds == DAY_S
    assert operation.metadata == metadata


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        pytest.param(None, 5, id="default"),
        pytest.param(10, 10, id="kept"),
        (1, 1),
        (0, 1),
        (-5, 1),
        (3600, 3600),
        (3601, 3600),
    ],
)
def test_retry_after_is_clamped(alice, asked, used):
    """The suggested delay is 5 s by default, and clamped to 1 s … 1 h."""
    given = {} if asked is None else {"retry_after": seconds(asked)}
    assert alice.create(**given).retry_after == seconds(used)


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        pytest.param(None, DAY_S, id="default"),
        pytest.param(59, 60, id="59"),
        pytest.param(0, 60, id="0"),
        pytest.param(-1, 60, id="negative"),
        pytest.param(604_801, 604_800, id="too-long"),
        pytest.param(315_576_000_000, 604_800, id="longest"),
        pytest.param(60, 60, id="60"),
        pytest.param(3600, 3600, id="inside"),
        pytest.param(604_800, 604_800, id="7-days"),
    ],
)
def test_ttl_is_clamped(alice, asked, used):
    """The ttl is 24 h by default, and clamped to 60 s … 7 days; the operation shows it."""
    given = {} if asked is None else {"ttl": seconds(asked)}
    operation = alice.create(**given)
    assert operation.ttl == seconds(used)
    kept = operation.expire_time.ToNanoseconds() - operation.create_time.ToNanoseconds()
    assert kept == used * 10**9


def test_fraction_of_a_second_is_kept(alice):
    """A ttl within the bounds is kept to the microsecond."""
    operation = alice.create(ttl=seconds(90, 250_001_000))
    assert operation.ttl == seconds(90, 250_001_000)


@pytest.mark.parametrize("asked", [0, -3])
def test_max_attempts_is_clamped(alice, asked):
    """An operation has at least one attempt."""
    assert alice.create(max_attempts=asked).max_attempts == 1


def metadata_of(size, character="x"):
    """Return metadata of `size` bytes of JSON: {"k":"…"}."""
    rest = size - len('{"k":""}')
    width = len(character.encode())
    return struct(k=character * (rest // width) + "x" * (rest % width))


def test_largest_metadata_is_accepted(alice):
    """Metadata of exactly 65,536 bytes of JSON is accepted."""
    metadata = metadata_of(METADATA_BYTES)
    assert alice.get(alice.create(metadata=metadata).id).metadata == metadata


@pytest.mark.parametrize("character", ["x", "é"])
def test_too_large_metadata_is_refused(alice, character):
    """Metadata of one more byte of JSON, counted in bytes, is refused, and nothing is stored."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.create(metadata=metadata_of(METADATA_BYTES + 1, character))
    assert "65536" in refusal.violations["metadata"]
    assert "65537" in refusal.violations["metadata"]
    assert owned(alice) == 0


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_metadata_is_json(alice, number):
    """Numbers that JSON cannot represent are refused at any depth, and nothing is stored."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.create(metadata=struct(deep={"list": [{"n": number}]}))
    assert set(refusal.violations) == {"metadata"}
    assert owned(alice) == 0


@pytest.mark.parametrize("field", ["function", "version", "original_request_id"])
def test_names_have_255_characters(alice, field):
    """A name of 255 characters is accepted, of 256 refused; characters count, not bytes."""
    name = "é" * 255
    assert getattr(alice.create(**{field: name}), field) == name
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.create(**{field: name + "x"})
    assert set(refusal.violations) == {field}
    assert "255" in refusal.violations[field]
    assert "256" in refusal.violations[field]


@pytest.mark.parametrize("field", ["function", "version", "original_request_id"])
@pytest.mark.parametrize("name", ["", "  ", "\t", "\u2003", "a\nb", "a\0"])
def test_names_are_one_line_of_text(alice, field, name):
    """A name that is blank or has control characters is refused."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.create(**{field: name})
    assert set(refusal.violations) == {field}
    assert owned(alice) == 0


@pytest.mark.parametrize(
    "request_id", ["a", string.ascii_letters + string.digits + "_.:-", "x" * 255]
)
def test_request_ids_that_are_taken(alice, request_id):
    """A request_id has 1 to 255 letters, digits, and _ . : - characters."""
    first = alice.create(request_id=request_id)
    assert alice.create(request_id=request_id).id == first.id


@pytest.mark.parametrize("request_id", ["", "x" * 256, "a b", "a/b", "ä", "a\n", "a\0"])
def test_request_ids_that_are_refused(alice, request_id):
    """Any other request_id is refused, and nothing is stored."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.create(request_id=request_id)
    assert set(refusal.violations) == {"request_id"}
    assert owned(alice) == 0


def test_every_violation_is_reported_at_once(alice):
    """A request with many faults is refused once, with every violated field."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.call(
            "CreateOperation",
            function=" ",
            version="x" * 256,
            request_id="not allowed",
            original_request_id="\n",
            metadata=struct(n=math.nan),
            ttl=duration_pb2.Duration(seconds=315_576_000_001),
            retry_after=duration_pb2.Duration(nanos=2_000_000_000),
            callback_url="",
            callback_events=["operation.completed", "operation.exploded"],
        )
    assert set(refusal.violations) == {
        "function",
        "version",
        "request_id",
        "original_request_id",
        "metadata",
        "ttl",
        "retry_after",
        "callback_url",
        "callback_events[1]",
    }
    for field, problem in refusal.violations.items():
        assert f"{field}: {problem}" in refusal.message


def test_callback_url_has_2048_characters(alice):
    """A callback URL of 2,048 characters is accepted unchanged; one more is refused."""
    url = "https://93.184.215.14/".ljust(2048, "x")
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.create(callback_url=url + "x")
    assert set(refusal.violations) == {"callback_url"}
    assert owned(alice) == 0
    assert alice.create(callback_url=url).callback_url == url


def test_callback_url_needs_master_keys(postgres_url, tmp_path):
    """A service on PostgreSQL without master keys refuses callback URLs."""
    with Service(postgres_url, tmp_path) as service:
        alice = service.client("alice")
        with refused(StatusCode.FAILED_PRECONDITION, "WEBHOOKS_NOT_CONFIGURED"):
            alice.create(callback_url="https://93.184.215.14/")
        assert owned(alice) == 0


def test_many_violations_still_arrive(alice, worker):
    """A request with thousands of faults gets an answer that fits into the metadata of gRPC."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.create(callback_events=["nonsense"] * 5_000)
    assert "callback_events[0]" in refusal.violations
    operation = alice.create()
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        worker.transition("FailOperation", operation.id, errors=[pb.OperationError()] * 5_000)
    assert "errors[0].code" in refusal.violations
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.call("ListOperations", statuses=[77] * 5_000)
    assert "statuses[0]" in refusal.violations


def test_create_can_be_repeated(alice):
    """The same request_id returns the running operation as a replay."""
    first = alice.call("CreateOperation", function=FUNCTION, request_id="r", version="1")
    alice.transition("StartOperation", first.operation.id)
    second = alice.call("CreateOperation", function=FUNCTION, request_id="r", version="1")
    assert (first.replayed, second.replayed) == (False, True)
    assert second.operation == alice.get(first.operation.id)
    assert second.operation.status == pb.OPERATION_STATUS_PROCESSING
    assert owned(alice) == 1


def test_create_can_be_repeated_after_the_end(alice):
    """The same request_id finds the finished operation with its result."""
    operation = alice.create(request_id="r")
    alice.transition("StartOperation", operation.id)
    value = struct_pb2.Value(string_value="done")
    packed = pb.Operation().result
    packed.Pack(value)
    done = alice.transition("CompleteOperation", operation.id, result=packed)
    again = alice.call("CreateOperation", function=FUNCTION, request_id="r")
    assert again.replayed
    assert again.operation == done
    assert again.operation.result == packed


def test_order_of_metadata_is_no_content(alice):
    """The order of the metadata does not make a request different."""
    names = [f"key-{number}" for number in range(40)]
    ids = set()
    for order in (names, names[::-1], sorted(names), names[20:] + names[:20]):
        metadata = struct_pb2.Struct()
        inner = metadata.fields["inner"].struct_value
        for name in order:
            metadata.fields[name].string_value = name
            inner.fields[name].number_value = 1
        ids.add(alice.create(request_id="r", metadata=metadata).id)
    assert len(ids) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"function": "audio.mix"},
        {"version": "2"},
        {"metadata": struct(a=2)},
        pytest.param({"metadata": struct()}, id="empty-metadata"),
        {"original_request_id": "other"},
        {"ttl": seconds(61)},
        {"retry_after": seconds(6)},
        {"max_attempts": 4},
    ],
    ids=lambda other: next(iter(other)),
)
def test_request_id_with_other_content_is_refused(alice, other):
    """A request_id that is reused with other content is refused, and nothing is created."""
    content = {"metadata": struct(a=1), "ttl": seconds(60), "request_id": "r"}
    alice.create(**content)
    with refused(StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED") as refusal:
        alice.create(**{**content, **other})
    assert refusal.facts == {"request_id": "r"}
    assert owned(alice) == 1


def test_request_ids_belong_to_their_owner(any_service, alice):
    """Another owner with the same request_id gets an operation of its own."""
    bob = any_service.client("bob")
    mine, theirs = alice.create(request_id="r"), bob.create(request_id="r", function="audio.mix")
    assert mine.id != theirs.id
    assert theirs.owner == bob.subject


def test_concurrent_creates_make_one(alice):
    """Many concurrent creates with one request_id make one operation; all others are replays."""
    calls = [alice.future("CreateOperation", function=FUNCTION, request_id="r") for _ in range(20)]
    responses = [call.result() for call in calls]
    assert len({response.operation.id for response in responses}) == 1
    assert [response.replayed for response in responses].count(False) == 1
    assert owned(alice) == 1
