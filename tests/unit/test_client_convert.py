"""Between messages and plain values: nothing is lost, and what would be is refused."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import any_pb2, duration_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from milepost.domain import operation as domain
from milepost.domain.limits import Limits
from milepost_client import Json, OperationError, Status
from milepost_client.convert import (
    EXACT_INTEGERS,
    MAX_LEVELS,
    from_any,
    from_operation,
    from_struct,
    to_any,
    to_checkpoint,
    to_duration,
    to_errors,
    to_statuses,
    to_struct,
    to_timestamp,
)
from milepost_client.gen.milepost.v1 import operation_pb2 as pb
from milepost_client.gen.milepost.v1 import worker_service_pb2
from tests.unit.client_script import operation


def pack(value: Json | Message) -> any_pb2.Any:
    """Return the value packed; it is not None."""
    packed = to_any(value)
    assert packed is not None
    return packed


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-EXACT_INTEGERS, EXACT_INTEGERS)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON.filter(lambda value: value is not None))
def test_json_comes_back_as_it_went(value):
    """Whatever JSON can say survives being packed, to the last digit."""
    packed = pack(value)
    assert packed.TypeName() == "google.protobuf.Value"
    assert from_any(packed) == value


@pytest.mark.parametrize(("sent", "back"), [(3, int), (3.0, int), (0.5, float), (True, bool)])
def test_whole_numbers_come_back_as_int(sent, back):
    """JSON has one kind of number: a whole one is an int, any other a float."""
    assert type(from_any(pack(sent))) is back


def test_tuples_come_back_as_lists():
    """A tuple is a list to JSON."""
    assert from_any(pack(({"a": (1, 2)},))) == [{"a": [1, 2]}]


def test_none_is_no_result():
    """None is packed as nothing at all."""
    assert to_any(None) is None


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 2**53 + 1, -(2**53) - 1])
def test_number_without_an_exact_place_in_json_is_refused(number):
    """A number that JSON would change or cannot say is refused, however deep it sits."""
    with pytest.raises(ValueError, match="JSON"):
        to_any({"deep": [number]})


@pytest.mark.parametrize("value", [b"bytes", {1}, object(), {"deep": [datetime.now(UTC)]}])
def test_what_is_not_json_is_refused(value):
    """A value that JSON has no word for is refused, however deep it sits."""
    with pytest.raises(TypeError, match="neither JSON nor a message"):
        to_any(value)


def test_names_that_are_not_text_are_refused():
    """The names of a JSON object are text; nothing is made text in silence."""
    with pytest.raises(TypeError, match="not int"):
        to_any({1: "one"})  # type: ignore[dict-item]


def test_message_is_packed_and_comes_back_packed():
    """A message of a type that is not plain JSON comes back as the Any that holds it."""
    message = wrappers_pb2.StringValue(value="x")
    packed = pack(message)
    assert from_any(packed) is packed
    back = wrappers_pb2.StringValue()
    assert packed.Unpack(back)
    assert back == message


def test_packed_message_is_left_alone():
    """A result that is packed already is not packed twice."""
    packed = any_pb2.Any(type_url="example.com/video.Result", value=b"\x01")
    assert to_any(packed) is packed


@pytest.mark.parametrize(
    ("message", "plain"),
    [
        (struct_pb2.Struct(fields={"a": struct_pb2.Value(number_value=1)}), {"a": 1}),
        (struct_pb2.ListValue(values=[struct_pb2.Value(bool_value=True)]), [True]),
        (struct_pb2.Value(null_value=struct_pb2.NULL_VALUE), None),
        (struct_pb2.Value(), None),
    ],
    ids=["object", "list", "null", "nothing"],
)
def test_every_form_of_json_becomes_plain(message, plain):
    """Workers in other languages may pack a Struct or a ListValue: it is JSON all the same."""
    assert from_any(pack(message)) == plain


def test_broken_result_comes_back_as_it_is():
    """Bytes that are not what they claim to be are handed out untouched."""
    packed = any_pb2.Any(type_url="type.googleapis.com/google.protobuf.Value", value=b"\xff")
    assert from_any(packed) is packed


def test_operation_tells_every_field():
    """Every field of the message is told under the same name, times aware and in UTC."""
    time = timestamp_pb2.Timestamp(seconds=1, nanos=5000)
    second = duration_pb2.Duration(seconds=1)
    times = [
        field.name
        for field in pb.Operation.DESCRIPTOR.fields
        if field.name.endswith("_time") and field.name not in {"create_time", "expire_time"}
    ]
    told = from_operation(
        operation(
            "COMPLETED",
            version="2",
            progress=1.0,
            progress_message="done",
            result=to_any({"frames": 7}),
            errors=[pb.OperationError(code="E", message="e", source="s")],
            metadata=to_struct({"source": "in.mov"}),
            original_request_id="web-1",
            callback_url="https://example.com/hook",
            worker="w1",
            attempt=2,
            failed_attempts=1,
            next_step=pb.NEXT_STEP_END,
            next_step_deadline=time,
            priority=7,
            unique_key="nightly",
            retry_policy=pb.RetryPolicy(
                initial_backoff=second, backoff_multiplier=1.5, max_backoff=second
            ),
            queue_timeout=second,
            run_timeout=second,
            checkpoint=to_any([7]),
            cancel_reason="changed my mind",
            traceparent=f"00-{0xABC:032x}-{0xDEF:016x}-01",
            **dict.fromkeys(times, time),
        )
    )
    fields = {field.name for field in pb.Operation.DESCRIPTOR.fields}
    assert {
        name for name in type(told).__slots__ if name not in {"replayed", "joined", "has_result"}
    } == fields
    assert all(getattr(told, name) not in (None, "", {}, ()) for name in fields)
    assert told.next_step == "END"
    assert told.start_time == datetime(1970, 1, 1, 0, 0, 1, 5, UTC)
    assert (told.ttl, told.retry_after) == (timedelta(days=1), timedelta(milliseconds=10))
    assert (told.result, told.metadata) == ({"frames": 7}, {"source": "in.mov"})
    assert (told.checkpoint, told.queue_timeout) == ([7], timedelta(seconds=1))
    assert told.retry_policy.backoff_multiplier == 1.5
    assert told.retry_policy.max_backoff == told.retry_policy.initial_backoff == told.run_timeout
    assert told.errors == (OperationError("E", "e", "s"),)


@pytest.mark.parametrize("number", [0, 99])
def test_step_that_is_unknown_or_none_is_none(number):
    """An operation that has ended, or a step that only a newer service has, tells no step."""
    assert from_operation(operation(next_step=number)).next_step is None


def test_absent_fields_are_none():
    """What is absent is None, and not zero or an empty text."""
    told = from_operation(operation())
    assert (told.version, told.progress, told.progress_message, told.result) == (None,) * 4
    assert (told.start_time, told.complete_time, told.worker, told.callback_url) == (None,) * 4
    assert (told.metadata, told.errors, told.replayed, told.joined) == ({}, (), False, False)
    assert (told.checkpoint, told.unique_key, told.queue_timeout) == (None,) * 3
    assert (told.cancel_request_time, told.cancel_reason, told.run_expire_time) == (None,) * 3
    assert told.traceparent is None


def test_checkpoint_is_bounded_as_the_service_bounds_it():
    """A checkpoint that the service would refuse is refused before it is on the stream."""
    room = any_pb2.Any(type_url="t", value=b"x" * Limits().checkpoint_bytes)
    assert to_checkpoint(room) is room
    with pytest.raises(ValueError, match="65,536 bytes, not 65,537"):
        to_checkpoint(any_pb2.Any(type_url="t", value=room.value + b"x"))
    assert to_checkpoint(None) is None


def test_operations_can_be_members_of_a_set():
    """Equal operations are one, although they hold dicts."""
    full = operation(metadata=to_struct({"a": 1}), result=to_any([1]))
    assert len({from_operation(full), from_operation(full)}) == 1


def test_statuses_are_those_of_the_service():
    """The client knows every status of the service, and which of them are the end."""
    assert set(map(str, Status)) - {Status.UNKNOWN} == set(map(str, domain.Status))
    ends = {status for status in Status if status.is_terminal}
    assert ends == {Status.COMPLETED, Status.FAILED, Status.CANCELLED}


@pytest.mark.parametrize("number", [0, 99])
def test_unknown_status_is_told_as_such(number):
    """A status of a newer service is UNKNOWN, which is no end, and cannot be asked for."""
    message = operation()
    message.status = number
    assert from_operation(message).status is Status.UNKNOWN
    with pytest.raises(ValueError, match="UNKNOWN"):
        to_statuses([Status.UNKNOWN])


@pytest.mark.parametrize("duration", [1.5, timedelta(seconds=1.5)])
def test_durations_are_seconds_or_timedeltas(duration):
    """A duration is given as seconds or as a timedelta."""
    message = to_duration(duration)
    assert message is not None
    assert message.ToTimedelta() == timedelta(seconds=1.5)


def test_time_without_a_zone_is_refused():
    """A time that may mean two moments is refused."""
    with pytest.raises(ValueError, match="time zone"):
        to_timestamp(datetime(2026, 1, 1))  # noqa: DTZ001 - what the test is about


def test_details_of_errors_are_kept():
    """The details of a reported error travel as a JSON object, and not at all if empty."""
    plain, detailed = to_errors(
        [OperationError("E", "e"), OperationError("E", "e", None, {"a": 1})]
    )
    assert not plain.HasField("details")
    assert from_struct(detailed.details) == {"a": 1}


def nested(levels, wrap):
    """Return an object with `levels` levels, made by `wrap` below the first."""
    value: Json = "x"
    for _ in range(levels - 1):
        value = wrap(value)
    return {"k": value}


@pytest.mark.parametrize(
    "wrap", [lambda value: {"k": value}, lambda value: [value]], ids=["objects", "lists"]
)
def test_deep_object_fits_into_a_request_or_is_refused(wrap):
    """The deepest object that is converted fits into every request; a deeper one is refused."""
    deepest = nested(MAX_LEVELS, wrap)
    errors = to_errors([OperationError("E", "e", details=deepest)])
    sent = worker_service_pb2.FailOperationRequest(errors=errors).SerializeToString()
    received = worker_service_pb2.FailOperationRequest.FromString(sent)
    assert from_struct(received.errors[0].details) == deepest
    with pytest.raises(ValueError, match="nested too deep"):
        to_struct(nested(MAX_LEVELS + 1, wrap))
