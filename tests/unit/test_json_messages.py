"""Messages as JSON, in both directions, against the functions of protobuf as the oracle."""

import base64
import json
import math
import random
from typing import Any

import pytest
from google.protobuf import any_pb2, duration_pb2, json_format, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor

from milepost.domain.errors import InvalidRequest
from milepost.gen.milepost.v1 import (
    admin_service_pb2,
    operation_pb2,
    operation_service_pb2,
    webhook_service_pb2,
    worker_service_pb2,
)
from milepost.web.json_messages import from_plain, to_json, to_plain

FILES = (operation_service_pb2, worker_service_pb2, webhook_service_pb2, admin_service_pb2)
REQUESTS = [
    getattr(file, name)
    for file in FILES
    for name in file.DESCRIPTOR.message_types_by_name
    if name.endswith("Request")
]
JUNK: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    1e300,
    "",
    "x",
    "1s",
    "\0",
    [],
    [[]],
    [None],
    [1],
    {},
]
JUNK += [{"": None}, {"@type": None}, {"@type": "a/b.C", "value": "AA"}, [{}], "\U0001f600", [""]]
PACKED = "type.googleapis.com/google.protobuf.Value"
UNKNOWN = "type.example.com/acme.Frames"
MAX_PROBLEM_LENGTH = 400


def filled(descriptor, chance, depth=0):
    """Return the JSON of a message with random values in its fields."""
    return {
        field.json_name: [_value(field, chance, depth)] if field.is_repeated else plain
        for field in descriptor.fields
        if (plain := _value(field, chance, depth)) is not None
    }


def problem_of(plain, message):
    """Return the text of the refusal; empty if the JSON fits."""
    try:
        from_plain(plain, message)
    except InvalidRequest as refusal:
        return str(refusal)
    return ""


def _value(field, chance, depth):
    if field.message_type is not None:
        return _MESSAGES.get(field.message_type.full_name, lambda _: None)(chance) or (
            filled(field.message_type, chance, depth + 1) if depth < 3 else None
        )
    if field.enum_type is not None:
        return chance.choice([value.name for value in field.enum_type.values])
    return {
        FieldDescriptor.CPPTYPE_STRING: chance.choice(["a", "ü\n", "\U0001f600"]),
        FieldDescriptor.CPPTYPE_BOOL: True,
        FieldDescriptor.CPPTYPE_DOUBLE: chance.choice([0.1, 1e-300, 5]),
        FieldDescriptor.CPPTYPE_INT64: str(chance.randrange(1, 2**63)),
        FieldDescriptor.CPPTYPE_INT32: chance.randrange(1, 2**31),
    }[field.cpp_type]


_MESSAGES = {
    "google.protobuf.Any": lambda _: {"@type": PACKED, "value": {"a": [1, None, "b"]}},
    "google.protobuf.Timestamp": lambda chance: f"2026-11-2{chance.randrange(10)}T01:02:03.000004Z",
    "google.protobuf.Duration": lambda chance: f"{chance.randrange(1, 99)}.500s",
    "google.protobuf.Struct": lambda _: {"a": {"b": [True, None, 0.5, 7, "c", {}]}},
}


@pytest.mark.parametrize("seed", range(20))
def test_json_is_that_of_protobuf(seed):
    """An operation becomes the JSON that protobuf makes of it, and comes back the same."""
    plain = filled(operation_pb2.Operation.DESCRIPTOR, random.Random(seed))  # noqa: S311 - no secret
    operation = operation_pb2.Operation()
    from_plain(plain, operation)
    assert to_plain(operation) == json_format.MessageToDict(operation)
    again = operation_pb2.Operation()
    from_plain(json.loads(to_json(operation)), again)
    assert again == operation


@pytest.mark.parametrize("request_type", REQUESTS, ids=lambda each: each.DESCRIPTOR.name)
def test_no_value_gets_past_the_refusal(request_type):
    """Any JSON in any field either fits or is refused with a short text."""
    for field in request_type.DESCRIPTOR.fields:
        for name in {field.name, field.json_name}:
            for junk in JUNK:
                assert len(problem_of({name: junk}, request_type())) <= MAX_PROBLEM_LENGTH


SECRET = "k0123456789abcdef0123456789abcdef"  # noqa: S105 - of no one


@pytest.mark.parametrize(
    ("plain", "problem"),
    [
        ({SECRET: 1}, "request: has no field k0123456789a…"),
        ({"function": {SECRET: SECRET}}, "function: must be a text"),
        ({"priority": SECRET}, "priority: must be a whole number of 32 bits"),
        ({"ttl": SECRET}, 'ttl: must be a duration, such as "30s"'),
        ({"scheduleTime": SECRET}, 'scheduleTime: must be a time, such as "2026-01-31T12:00:00Z"'),
        (
            {"metadata": [SECRET]},
            "metadata: must be an object, with finite numbers and not nested too deeply",
        ),
        ({"retry_policy": SECRET}, "retry_policy: must be an object"),
        ({"retryPolicy": {"colour": SECRET}}, "retryPolicy: has no field colour"),
        (
            {"retryPolicy": {"maxBackoff": [SECRET]}},
            'retryPolicy.maxBackoff: must be a duration, such as "30s"',
        ),
        ({"callbackEvents": SECRET}, "callbackEvents: must be a list; each item is a text"),
        ({"requestId": SECRET, "request_id": SECRET}, "request: must give each field once"),
    ],
)
def test_refusal_names_the_field_and_never_its_value(plain, problem):
    """A refusal says which field does not fit and what it must be; it quotes no value."""
    assert problem_of(plain, operation_service_pb2.CreateOperationRequest()) == problem


def test_refusal_names_the_item_of_a_list():
    """A refusal of an item of a list names its place."""
    errors = [{"code": "A"}, {"code": [SECRET]}]
    request = worker_service_pb2.FailOperationRequest()
    assert problem_of({"errors": errors}, request) == "errors[1].code: must be a text"


@pytest.mark.parametrize(
    ("number", "text"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")]
)
def test_numbers_without_json_are_texts(number, text):
    """NaN and the infinities are texts, in a field and in a Struct."""
    assert to_plain(operation_pb2.Operation(progress=number)) == {"progress": text}
    assert to_plain(struct_pb2.Value(number_value=number)) == text


def test_whole_numbers_have_no_fraction():
    """A whole number of a Struct comes back as it was sent, as far as a double is exact."""
    struct = struct_pb2.Struct()
    struct.update({"n": 240, "big": 2**52, "huge": 2.0**60, "minus": -1, "half": 0.5})
    text = to_json(struct).decode()
    assert json.loads(text) == {"n": 240, "big": 2**52, "huge": 2.0**60, "minus": -1, "half": 0.5}
    assert '"n":240' in text.replace("240.0", "wrong")


def test_large_integers_are_texts():
    """A 64-bit number is a text, because the numbers of JavaScript are not exact."""
    operation = operation_pb2.Operation(revision=2**63 - 1)
    assert to_plain(operation) == {"revision": "9223372036854775807"}


def test_unknown_enum_is_its_number():
    """A status that this version does not know is a number, in both directions."""
    operation = operation_pb2.Operation(status=99)  # type: ignore[arg-type]
    assert to_plain(operation) == {"status": 99}
    again = operation_pb2.Operation()
    from_plain({"status": 99}, again)
    assert again == operation


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (duration_pb2.Duration(), "0s"),
        (duration_pb2.Duration(seconds=100), "100s"),
        (duration_pb2.Duration(nanos=-500_000_000), "-0.500s"),
        (duration_pb2.Duration(seconds=315_576_000_000, nanos=1), "315576000000.000000001s"),
        (timestamp_pb2.Timestamp(), "1970-01-01T00:00:00Z"),
        (timestamp_pb2.Timestamp(seconds=-1, nanos=1_000), "1969-12-31T23:59:59.000001Z"),
        (timestamp_pb2.Timestamp(seconds=253_402_300_799), "9999-12-31T23:59:59Z"),
    ],
)
def test_times_are_exact(message, text):
    """Durations and instants have their canonical text."""
    assert to_plain(message) == text


def test_empty_values_are_kept_apart_from_absent_ones():
    """An absent optional field stays absent, an empty one empty, and null means absent."""
    request = worker_service_pb2.UpdateProgressRequest()
    from_plain({"message": "", "progress": None, "checkpoint": None}, request)
    assert request.HasField("message")
    assert not request.HasField("progress")
    assert not request.HasField("checkpoint")
    created = operation_service_pb2.CreateOperationRequest()
    from_plain({"metadata": {}}, created)
    assert created.HasField("metadata")
    operation = operation_pb2.Operation(metadata=struct_pb2.Struct())
    assert to_plain(operation) == {"metadata": {}}


@pytest.mark.parametrize(
    "packed",
    [
        any_pb2.Any(type_url=UNKNOWN, value=b"\x08\xff"),
        any_pb2.Any(type_url=UNKNOWN),
        any_pb2.Any(type_url=PACKED, value=b"\xff"),
        any_pb2.Any(type_url="no slash", value=b"x"),
        any_pb2.Any(
            type_url="type.googleapis.com/google.protobuf.Any",
            value=any_pb2.Any(type_url=UNKNOWN, value=b"x").SerializeToString(),
        ),
        any_pb2.Any(
            type_url=PACKED, value=struct_pb2.Value(number_value=math.nan).SerializeToString()
        ),
    ],
    ids=repr,
)
def test_result_that_cannot_be_shown_is_base64(packed):
    """A packed message of unknown type, or with broken bytes, is its bytes."""
    plain = to_plain(operation_pb2.Operation(result=packed))["result"]
    assert plain == {"@type": packed.type_url, "value": base64.b64encode(packed.value).decode()}


@pytest.mark.parametrize("value", ["-_8=", "+/8=", "-_8"])
def test_bytes_have_either_alphabet(value):
    """The bytes of a message of unknown type are base64 with or without padding."""
    request = worker_service_pb2.CompleteOperationRequest()
    from_plain({"result": {"@type": UNKNOWN, "value": value}}, request)
    assert request.result == any_pb2.Any(type_url=UNKNOWN, value=b"\xfb\xff")


def test_result_is_packed_by_its_type():
    """A message of a known type is packed as its own protobuf."""
    request = worker_service_pb2.CompleteOperationRequest()
    from_plain({"result": {"@type": PACKED, "value": {"frames": 240}}}, request)
    value = struct_pb2.Value()
    assert request.result.Unpack(value)
    assert value.struct_value["frames"] == 240


def test_deep_values_are_refused_or_kept():
    """A value of any depth is refused, or comes back whole; none is an accident."""
    for depth in (1, 20, 60, 99, 400):
        plain: object = 1
        for _ in range(depth):
            plain = [plain]
        request = operation_service_pb2.CreateOperationRequest()
        try:
            from_plain({"metadata": {"a": plain}}, request)
        except InvalidRequest:
            assert depth > 20
        else:
            assert to_plain(request) == {"metadata": {"a": plain}}
