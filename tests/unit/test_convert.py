"""Conversion of messages to values."""

import math
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from milepost.api.convert import MAX_VIOLATIONS, Fields
from milepost.api.create_fields import CreateFields
from milepost.domain.errors import InvalidRequest
from milepost.domain.limits import Limits
from milepost.domain.operation import (
    CreateRequest,
    OperationError,
    Payload,
    Status,
)
from milepost.domain.selection import Selection
from milepost.domain.transitions import CALLBACK_EVENTS, TABLE, Preconditions
from milepost.gen.milepost.v1 import operation_pb2, operation_service_pb2, worker_service_pb2

PROTOS = Path(__file__).resolve().parents[2] / "protos/milepost/v1"
CREATE = operation_service_pb2.CreateOperationRequest
LIST = operation_service_pb2.ListOperationsRequest
PROGRESS = worker_service_pb2.UpdateProgressRequest
COMPLETE = worker_service_pb2.CompleteOperationRequest
FAIL = worker_service_pb2.FailOperationRequest


def fields(request, **limits) -> Fields:
    """Return the fields of a request."""
    return Fields(request, Limits(**limits))


def create_fields(request, **limits) -> CreateFields:
    """Return the fields of a create."""
    return CreateFields(request, Limits(**limits))


def violations(read: Fields) -> dict[str, str]:
    """Return the problem of each invalid field."""
    with pytest.raises(InvalidRequest) as caught:
        read.done()
    return {violation.field: violation.problem for violation in caught.value.violations}


# --- messages to values ---


def test_empty_request_has_no_values():
    """Fields that a request does not set are absent."""
    read = create_fields(CREATE(function="f"))
    assert read.create_request() == CreateRequest(function="f")
    read.done()
    assert fields(LIST()).selection() == Selection()
    assert fields(PROGRESS()).preconditions() == Preconditions()


def test_every_field_of_a_create_is_read():
    """Every field of a create is in the create request."""
    request = CREATE(
        request_id="r",
        function="f",
        version="v",
        original_request_id="o",
        callback_url="https://example.com/",
        ttl=duration_pb2.Duration(seconds=90, nanos=1_500),
        retry_after=duration_pb2.Duration(seconds=7),
        max_attempts=4,
        callback_events=["operation.failed", "operation.completed", "operation.failed"],
        schedule_time=timestamp_pb2.Timestamp(seconds=1_000),
        priority=7,
        unique_key="nightly",
        unique_key_policy=operation_service_pb2.UNIQUE_KEY_POLICY_REFUSE,
        retry_policy=operation_pb2.RetryPolicy(
            initial_backoff=duration_pb2.Duration(seconds=2),
            backoff_multiplier=1.5,
            max_backoff=duration_pb2.Duration(seconds=60),
        ),
        queue_timeout=duration_pb2.Duration(seconds=120),
        run_timeout=duration_pb2.Duration(seconds=180),
    )
    request.metadata.update({"b": 1, "a": {}})
    read = create_fields(request)
    assert read.create_request() == CreateRequest(
        function="f",
        version="v",
        metadata='{"a":{},"b":1}',
        original_request_id="o",
        callback_url="https://example.com/",
        callback_events=("operation.completed", "operation.failed"),
        ttl=timedelta(seconds=90, microseconds=1),
        retry_after=timedelta(seconds=7),
        max_attempts=4,
        request_id="r",
        schedule_time=datetime(1970, 1, 1, 0, 16, 40, tzinfo=UTC),
        priority=7,
        unique_key="nightly",
        refuses_to_join=True,
        initial_backoff=timedelta(seconds=2),
        backoff_multiplier=1.5,
        max_backoff=timedelta(minutes=1),
        queue_timeout=timedelta(minutes=2),
        run_timeout=timedelta(minutes=3),
    )
    read.done()
    assert {field.name for field, _ in request.ListFields()} == {
        field.name for field in CREATE.DESCRIPTOR.fields
    }


def test_every_filter_of_a_list_is_read():
    """Every filter is in the selection; order and repetition of statuses do not matter."""
    request = LIST(
        statuses=[
            operation_pb2.OPERATION_STATUS_PENDING,
            operation_pb2.OPERATION_STATUS_FAILED,
            operation_pb2.OPERATION_STATUS_PENDING,
        ],
        function="f",
        owner="o",
        create_time_from=timestamp_pb2.Timestamp(seconds=1, nanos=1_000),
        create_time_to=timestamp_pb2.Timestamp(seconds=2),
    )
    read = fields(request)
    assert read.selection() == Selection(
        statuses=(Status.FAILED, Status.PENDING),
        function="f",
        owner="o",
        create_time_from=datetime(1970, 1, 1, 0, 0, 1, 1, UTC),
        create_time_to=datetime(1970, 1, 1, 0, 0, 2, 0, UTC),
    )
    read.done()


def test_limits_are_those_configured():
    """Every limit can differ from the default."""
    create = create_fields(CREATE(function="ffff"), name_length=3)
    create.create_request()
    assert set(violations(create)) == {"function"}
    progress = fields(PROGRESS(message="1234"), message_length=3)
    progress.message()
    assert set(violations(progress)) == {"message"}
    assert fields(LIST(page_size=11), page_size_max=10).page_size() == 10
    request = COMPLETE()
    request.result.type_url, request.result.value = "x/y", b"1234"
    complete = fields(request, result_bytes=3)
    complete.result()
    assert set(violations(complete)) == {"result"}
    fail = fields(
        FAIL(errors=[operation_pb2.OperationError(code="c", message="m")]), errors_bytes=5
    )
    fail.errors()
    assert set(violations(fail)) == {"errors"}


@given(st.floats())
def test_progress_is_clamped_or_refused(value):
    """Any finite number is clamped to 0.0 … 1.0, the others are refused."""
    read = fields(PROGRESS(progress=value))
    found = read.progress()
    if math.isfinite(value):
        read.done()
        assert found == min(1.0, max(0.0, value))
    else:
        assert set(violations(read)) == {"progress"}


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**31), 2**31 - 1),
)
def test_any_duration_and_time_can_be_sent(seconds, nanos):
    """Any duration or time is read or refused, and never causes a defect."""
    request = CREATE(function="f", ttl=duration_pb2.Duration(seconds=seconds, nanos=nanos))
    read = fields(request)
    span = read.duration("ttl")
    if span is not None:
        Limits().ttl(span)
    moment = timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos)
    read = fields(LIST(create_time_from=moment))
    instant = read.instant("create_time_from")
    assert instant is None or instant.tzinfo is UTC


def test_violations_are_bounded():
    """A bounded number of violations is kept, with the number of the others."""
    read = fields(FAIL(errors=[operation_pb2.OperationError()] * 1_000))
    read.errors()
    with pytest.raises(InvalidRequest) as caught:
        read.done()
    assert len(caught.value.violations) == MAX_VIOLATIONS
    assert caught.value.omitted == 2_000 - MAX_VIOLATIONS


def result(type_url: str = "x/y", value: bytes = b""):
    """A request to complete with this result."""
    request = COMPLETE()
    request.result.type_url, request.result.value = type_url, value
    return request


def checkpoint(type_url: str = "x/y", value: bytes = b""):
    """An update with this checkpoint."""
    request = PROGRESS()
    request.checkpoint.type_url, request.checkpoint.value = type_url, value
    return request


def days_ahead(days: int) -> timestamp_pb2.Timestamp:
    """The time so many days from now, and a minute."""
    return timestamp_pb2.Timestamp(seconds=int(time.time()) + days * 86_400 + 60)


def failure_after(*, retryable: bool):
    """A request to fail with a delay of the next attempt."""
    return FAIL(retryable=retryable, retry_delay=duration_pb2.Duration(seconds=1))


def failure(**fields):
    """A request to fail with one error."""
    return FAIL(errors=[operation_pb2.OperationError(**{"code": "c", "message": "m", **fields})])


NOT_A_NUMBER = struct_pb2.Struct(fields={"n": struct_pb2.Value(number_value=math.inf)})

MALFORMED_CREATES: list[tuple[dict[str, Any], str]] = [
    ({"priority": 10}, "priority"),
    ({"priority": -1}, "priority"),
    ({"unique_key": ""}, "unique_key"),
    ({"unique_key": "x" * 256}, "unique_key"),
    ({"unique_key": "a\nb"}, "unique_key"),
    ({"unique_key_policy": 9}, "unique_key_policy"),
    ({"schedule_time": timestamp_pb2.Timestamp(nanos=-1)}, "schedule_time"),
    ({"schedule_time": days_ahead(31)}, "schedule_time"),
    ({"queue_timeout": duration_pb2.Duration(nanos=-(2**31))}, "queue_timeout"),
    ({"run_timeout": duration_pb2.Duration(nanos=-(2**31))}, "run_timeout"),
    *(
        (
            {"retry_policy": operation_pb2.RetryPolicy(backoff_multiplier=wrong)},
            "retry_policy.backoff_multiplier",
        )
        for wrong in (math.nan, math.inf)
    ),
]
"""Fields of a create, and the one that is malformed."""
MALFORMED = [
    (PROGRESS(operation_id="op_short"), "operation_id", "operation_id"),
    (PROGRESS(operation_id="op_" + "g" * 24), "operation_id", "operation_id"),
    (PROGRESS(request_id="a b"), "preconditions", "request_id"),
    (PROGRESS(expected_revision=0), "preconditions", "expected_revision"),
    (PROGRESS(attempt=-1), "preconditions", "attempt"),
    (PROGRESS(message="a\0"), "message", "message"),
    (CREATE(), "create_request", "function"),
    (CREATE(function="a\nb"), "create_request", "function"),
    (CREATE(function="f", callback_url=" "), "create_request", "callback_url"),
    (CREATE(function="f", callback_events=["x"]), "create_request", "callback_events[0]"),
    (CREATE(function="f", metadata=NOT_A_NUMBER), "create_request", "metadata"),
    (
        CREATE(function="f", ttl=duration_pb2.Duration(seconds=2**60)),
        "create_request",
        "ttl",
    ),
    *(
        (CREATE(function="f", **values), "create_request", field)
        for values, field in MALFORMED_CREATES
    ),
    (checkpoint(""), "checkpoint", "checkpoint"),
    (checkpoint(value=b"x" * 65_537), "checkpoint", "checkpoint"),
    (failure_after(retryable=False), "retry_delay", "retry_delay"),
    (result(""), "result", "result"),
    (result("a\0b"), "result", "result"),
    (result("x" * 2_049), "result", "result"),
    (result(value=b"x" * 1_048_577), "result", "result"),
    (FAIL(), "errors", "errors"),
    (failure(code=" "), "errors", "errors[0].code"),
    (failure(message=""), "errors", "errors[0].message"),
    (failure(details=NOT_A_NUMBER), "errors", "errors[0].details"),
    (LIST(page_size=-1), "page_size", "page_size"),
    (LIST(statuses=[operation_pb2.OPERATION_STATUS_UNSPECIFIED]), "selection", "statuses[0]"),
    (LIST(view=9), "full_view", "view"),  # type: ignore[arg-type]
    (LIST(create_time_from=timestamp_pb2.Timestamp(nanos=-1)), "selection", "create_time_from"),
]
"""Requests, the method that reads them, and the field that is malformed."""


@pytest.mark.parametrize(("request_", "method", "field"), MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_field_is_named(request_, method, field):
    """A malformed value is refused with the name of its field, and no other."""
    read = create_fields(request_)
    getattr(read, method)()
    assert set(violations(read)) == {field}


def test_largest_values_are_read():
    """The bounds of the fields belong to the values that are read."""
    create = create_fields(
        CREATE(function="f", priority=9, unique_key="x" * 255, schedule_time=days_ahead(29))
    )
    create.create_request()
    create.done()
    update = fields(checkpoint(value=b"x" * 65_536))
    update.checkpoint()
    update.done()
    delayed = fields(failure_after(retryable=True))
    assert delayed.retry_delay() == timedelta(seconds=1)
    delayed.done()


@pytest.mark.parametrize(
    ("given", "used"), [(0, 0), (1, 1), (100, 100), (101, 100), (2**31 - 1, 100)]
)
def test_page_size_is_clamped(given, used):
    """A page size above the maximum becomes the maximum; 0 selects the default."""
    read = fields(LIST(page_size=given))
    assert read.page_size() == used
    read.done()


def test_callback_events_are_the_documented_ones():
    """Exactly the events that the proto lists are accepted, and a violation names all of them."""
    text = (PROTOS / "operation_service.proto").read_text(encoding="utf-8")
    comment = re.search(r"((?: *//.*\n)+) *repeated string callback_events", text)
    assert comment is not None
    documented = re.findall(r"`(operation\.\w+)`", comment[1].partition("Empty means")[0])
    assert tuple(documented) == CALLBACK_EVENTS
    read = create_fields(CREATE(function="f", callback_events=documented))
    assert set(read.create_request().callback_events) == set(documented)
    read.done()
    for event in {rule.event for rule in TABLE.values()} - set(documented):
        refused = create_fields(CREATE(function="f", callback_events=[event]))
        refused.create_request()
        assert violations(refused) == {
            "callback_events[0]": f"must be one of {', '.join(documented)}"
        }


def test_maximum_values_are_accepted():
    """A value that is exactly at its limit is read unchanged."""
    read = fields(result("x" * 2_048, b"x" * 1_048_576))
    assert read.result() == Payload(type_url="x" * 2_048, value=b"x" * 1_048_576)
    read.done()
    full = fields(LIST(view=operation_pb2.OPERATION_VIEW_FULL, page_size=100))
    assert (full.full_view(), full.page_size()) == (True, 100)
    full.done()
    failed = fields(failure(source="", details=struct_pb2.Struct()))
    assert failed.errors() == (OperationError(code="c", message="m", source="", details="{}"),)
    failed.done()
