"""Conversion of values to messages, as their viewers may see them."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from milepost.api.messages import fill
from milepost.domain.operation import (
    Operation,
    OperationError,
    Payload,
    RetryPolicy,
    Status,
    UnknownStatus,
    new_operation_id,
)
from milepost.gen.milepost.v1 import operation_pb2

NOON = datetime(2026, 1, 2, 12, 0, 0, 123_456, UTC)
WHOLE = Operation(
    id=new_operation_id(),
    function="video.transcode",
    version="2",
    owner="alice",
    status=Status.PROCESSING,
    progress=0.5,
    progress_message="m",
    progress_time=NOON + timedelta(seconds=3),
    result=Payload(type_url="x/y", value=b"z"),
    errors=(OperationError(code="A", message="b", source="s", details='{"n":1}'),),
    metadata='{"a":[1,null]}',
    original_request_id="their-1",
    callback_url="https://example.com/hook?token=secret",
    create_time=NOON,
    start_time=NOON + timedelta(seconds=1),
    complete_time=NOON + timedelta(seconds=4),
    cancel_time=NOON + timedelta(seconds=5),
    expire_time=NOON + timedelta(days=1),
    ttl=timedelta(days=1, microseconds=5),
    retry_after=timedelta(seconds=5),
    revision=2**40,
    attempt=2,
    max_attempts=3,
    failed_attempts=1,
    next_attempt_time=NOON + timedelta(seconds=40),
    worker="w",
    lease_expire_time=NOON + timedelta(seconds=30),
    trace_context="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    priority=7,
    schedule_time=NOON + timedelta(seconds=6),
    unique_key="nightly",
    retry_policy=RetryPolicy(
        initial_backoff=timedelta(seconds=2),
        backoff_multiplier=1.5,
        max_backoff=timedelta(minutes=1),
    ),
    queue_timeout=timedelta(minutes=2),
    run_timeout=timedelta(minutes=3),
    queue_expire_time=NOON + timedelta(seconds=50),
    run_expire_time=NOON + timedelta(seconds=60),
    cancel_request_time=NOON + timedelta(seconds=7),
    cancel_delivered_time=NOON + timedelta(seconds=8),
    cancel_expire_time=NOON + timedelta(seconds=70),
    cancel_reason="too slow",
    checkpoint=Payload(type_url="x/c", value=b"c"),
)


def operation_message(operation, viewer, *, full=True):
    """Return the message of an operation for `viewer`."""
    message = operation_pb2.Operation()
    fill(message, operation, viewer, full=full)
    return message


def test_every_field_is_filled():
    """Every field of an operation is in its message, and every field of the message is set."""
    message = operation_message(WHOLE, WHOLE.owner)
    filled = {field.name for field, _ in message.ListFields()}
    assert filled == {field.name for field in operation_pb2.Operation.DESCRIPTOR.fields}
    names = {field.name for field in dataclasses.fields(Operation)} - {"trace_context"}
    derived = {"next_step", "next_step_deadline", "traceparent"}
    assert names | derived == filled
    for name in ("id", "function", "version", "owner", "progress", "progress_message", "worker"):
        assert getattr(message, name) == getattr(WHOLE, name)
    for name in ("original_request_id", "revision", "attempt", "max_attempts"):
        assert getattr(message, name) == getattr(WHOLE, name)
    for name in names:
        if name.endswith("_time"):
            assert getattr(message, name).ToDatetime(tzinfo=UTC) == getattr(WHOLE, name)
    for name in ("ttl", "retry_after"):
        assert getattr(message, name).ToTimedelta() == getattr(WHOLE, name)
    assert message.traceparent == WHOLE.trace_context
    assert message.status == operation_pb2.OPERATION_STATUS_PROCESSING
    assert (message.result.type_url, message.result.value) == ("x/y", b"z")
    assert message.errors[0].details == struct_pb2.Struct(
        fields={"n": struct_pb2.Value(number_value=1)}
    )


@pytest.mark.parametrize("created", [None, f"00-{1:032x}-{2:016x}-00"])
def test_trace_that_is_not_sampled_is_absent(created):
    """A worker gets no trace of the create in which its function would not be recorded."""
    message = operation_message(dataclasses.replace(WHOLE, trace_context=created), WHOLE.owner)
    assert not message.HasField("traceparent")


def test_basic_view_omits_payloads():
    """The basic view differs from the full one only by the payloads."""
    message = operation_message(WHOLE, WHOLE.owner)
    for name in ("result", "errors", "metadata", "checkpoint"):
        message.ClearField(name)
    assert operation_message(WHOLE, WHOLE.owner, full=False) == message


@pytest.mark.parametrize("viewer", ["bob", "", "Alice"])
def test_others_do_not_see_the_callback_url(viewer):
    """Only the owner sees the callback URL, and its query is never shown."""
    message = operation_message(WHOLE, viewer)
    assert not message.HasField("callback_url")
    assert operation_message(WHOLE, "alice").callback_url == "https://example.com/hook"
    assert "secret" not in str(operation_message(WHOLE, "alice"))


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_its_number(status):
    """Every status has its own number in the API."""
    message = operation_message(dataclasses.replace(WHOLE, status=status), "bob")
    assert operation_pb2.OperationStatus.Name(message.status) == f"OPERATION_STATUS_{status}"


def test_unknown_status_has_no_number():
    """A status of a newer release is unspecified."""
    message = operation_message(dataclasses.replace(WHOLE, status=UnknownStatus("PAUSED")), "bob")
    assert message.status == operation_pb2.OPERATION_STATUS_UNSPECIFIED


@given(
    st.datetimes(
        min_value=datetime(1900, 1, 1),  # noqa: DTZ001
        max_value=datetime(2100, 1, 1),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
    st.timedeltas(min_value=timedelta(days=-3650), max_value=timedelta(days=3650)),
)
def test_times_are_exact(instant, span):
    """Times and durations are exact to the microsecond, also before 1970."""
    operation = dataclasses.replace(WHOLE, create_time=instant, ttl=span)
    message = operation_message(operation, "bob")
    assert message.create_time.ToDatetime(tzinfo=UTC) == instant
    assert 0 <= message.create_time.nanos < 10**9
    if span >= timedelta(0):
        assert message.ttl.ToTimedelta() == span
