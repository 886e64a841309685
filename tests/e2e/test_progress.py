"""UpdateProgress, and the initial progress of a start."""

import math

import pytest
from google.protobuf import struct_pb2
from grpc import StatusCode

from milepost.domain.operation import OperationId, new_operation_id
from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.refusals import refused

MESSAGE_LENGTH = 1_000


@pytest.fixture
def processing(alice):
    """An operation at 0.5, with a message."""
    operation = alice.create_in("PROCESSING")
    return alice.transition("UpdateProgress", operation.id, progress=0.5, message="halfway")


def test_progress_is_stored(alice, processing):
    """A report is stored, and the operation goes on."""
    updated = alice.transition("UpdateProgress", processing.id, progress=0.75)
    assert (updated.progress, updated.status) == (0.75, pb.OPERATION_STATUS_PROCESSING)
    assert updated.revision == processing.revision + 1
    assert updated.progress_time.ToNanoseconds() >= processing.progress_time.ToNanoseconds()
    assert alice.get(processing.id) == updated


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        pytest.param(1.5, 1.0, id="above"),
        pytest.param(-0.5, 0.0, id="below"),
        pytest.param(1e308, 1.0, id="huge"),
        pytest.param(-0.0, 0.0, id="negative-zero"),
        pytest.param(5e-324, 5e-324, id="tiny"),
        pytest.param(0.0, 0.0, id="0"),
        pytest.param(0.75, 0.75, id="0.75"),
        pytest.param(1.0, 1.0, id="1"),
    ],
)
@pytest.mark.parametrize("method", ["StartOperation", "UpdateProgress"])
def test_progress_is_clamped(alice, method, given, stored):
    """Progress is clamped to 0.0 … 1.0, also that of a start."""
    operation = alice.transition(method, alice.create().id, progress=given)
    assert operation.progress == stored
    assert operation.HasField("progress")
    assert math.copysign(1, operation.progress) == 1
    assert alice.get(operation.id) == operation


@pytest.mark.parametrize("method", ["StartOperation", "UpdateProgress"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_progress_is_a_number(alice, stored, method, number):
    """NaN and infinities are refused, and nothing changes."""
    operation = alice.create()
    before = stored.everything(OperationId(operation.id))
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.transition(method, operation.id, progress=number)
    assert set(refusal.violations) == {"progress"}
    assert stored.everything(OperationId(operation.id)) == before


def test_decrease_is_refused(alice, processing):
    """A decrease of progress is refused with both values, and changes nothing."""
    with refused(StatusCode.INVALID_ARGUMENT, "PROGRESS_DECREASE") as refusal:
        alice.transition("UpdateProgress", processing.id, progress=0.4, message="not kept")
    assert refusal.facts == {"current": "0.5", "requested": "0.4"}
    assert set(refusal.violations) == {"progress"}
    assert "0.5" in refusal.message
    assert "0.4" in refusal.message
    assert alice.get(processing.id) == processing


def test_same_progress_is_accepted(alice, processing):
    """The same progress again is accepted, and raises the revision."""
    updated = alice.transition("UpdateProgress", processing.id, progress=0.5)
    assert (updated.progress, updated.revision) == (0.5, processing.revision + 1)


def test_small_decrease_is_accepted(alice, processing):
    """A decrease of at most 0.001 is accepted, and the larger value is kept."""
    assert alice.transition("UpdateProgress", processing.id, progress=0.4995).progress == 0.5
    assert alice.transition("UpdateProgress", processing.id, progress=0.5 - 0.001).progress == 0.5
    with refused(StatusCode.INVALID_ARGUMENT, "PROGRESS_DECREASE"):
        alice.transition("UpdateProgress", processing.id, progress=0.4989)


def test_progress_starts_a_pending_operation(alice):
    """A report on a pending operation starts it."""
    operation = alice.create()
    updated = alice.transition("UpdateProgress", operation.id, progress=0.1)
    assert updated.status == pb.OPERATION_STATUS_PROCESSING
    assert (updated.revision, updated.attempt, updated.worker) == (2, 1, alice.subject)
    assert updated.HasField("start_time")


def test_earlier_message_stays(alice, processing):
    """A report without a message keeps the earlier one; an empty message replaces it."""
    updated = alice.transition("UpdateProgress", processing.id, progress=0.6)
    assert updated.progress_message == "halfway"
    updated = alice.transition("UpdateProgress", processing.id, message="")
    assert updated.HasField("progress_message")
    assert (updated.progress, updated.progress_message) == (0.6, "")


def test_empty_report_is_accepted(alice, processing):
    """An empty report is accepted, and changes neither progress nor message."""
    updated = alice.transition("UpdateProgress", processing.id)
    assert (updated.progress, updated.progress_message) == (0.5, "halfway")
    assert updated.revision == processing.revision + 1


@pytest.mark.parametrize("character", ["x", "é", "🚀"])
def test_message_length(alice, processing, character):
    """A message of 1,000 characters is accepted, one of 1,001 refused."""
    longest = character * MESSAGE_LENGTH
    updated = alice.transition("UpdateProgress", processing.id, message=longest)
    assert updated.progress_message == longest
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.transition("UpdateProgress", processing.id, message=longest + character)
    assert set(refusal.violations) == {"message"}
    assert "1000" in refusal.violations["message"]
    assert "1001" in refusal.violations["message"]


def test_message_is_kept_as_it_is(alice, processing):
    """A message can have several lines and any script; only NUL is refused."""
    text = " 漢字\n\ttab \x01 \u202e\N{NO-BREAK SPACE}"
    assert alice.transition("UpdateProgress", processing.id, message=text).progress_message == text
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.transition("UpdateProgress", processing.id, message="a\0b")
    assert set(refusal.violations) == {"message"}


def test_unknown_operation(alice, worker):
    """A report about an unknown operation is not found."""
    for client in (alice, worker):
        with refused(StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND"):
            client.transition("UpdateProgress", new_operation_id(), progress=0.1)


def test_progress_changes_nothing_else(alice):
    """A report changes progress, message, their time and the revision only."""
    metadata = struct_pb2.Struct()
    metadata.update({"a": [1, 2]})
    operation = alice.create(metadata=metadata, version="2", original_request_id="x")
    before = alice.transition("StartOperation", operation.id)
    alice.transition("UpdateProgress", operation.id, progress=0.5, message="m")
    after = alice.get(operation.id)
    for field in ("progress", "progress_message", "progress_time", "revision"):
        before.ClearField(field)
        after.ClearField(field)
    assert after == before


def test_answer_has_the_basic_view(alice):
    """The answer to a report has the BASIC view, without metadata."""
    metadata = struct_pb2.Struct()
    metadata.update({"a": 1})
    operation = alice.create(metadata=metadata)
    assert not alice.transition("UpdateProgress", operation.id, progress=0.5).HasField("metadata")
    assert alice.get(operation.id).metadata == metadata


def test_concurrent_reports(alice, processing):
    """Of two concurrent reports the larger one is kept; the smaller one may be refused."""
    calls = [
        alice.future("UpdateProgress", operation_id=processing.id, progress=progress)
        for progress in (0.7, 0.6)
    ]
    codes = [future.code() for future in calls]
    assert codes[0] is StatusCode.OK
    assert codes[1] in {StatusCode.OK, StatusCode.INVALID_ARGUMENT}
    assert alice.get(processing.id).progress == 0.7


def test_every_report_is_committed(alice, processing):
    """Each of many reports raises the revision by one."""
    calls = [
        alice.future("UpdateProgress", operation_id=processing.id, progress=0.5) for _ in range(50)
    ]
    revisions = sorted(future.result().operation.revision for future in calls)
    assert revisions == list(range(processing.revision + 1, processing.revision + 51))
