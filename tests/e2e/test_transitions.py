"""Rules of every RPC that changes an operation: table, preconditions, repetitions."""

import pytest
from google.protobuf import duration_pb2
from grpc import StatusCode

from milepost.domain.operation import OperationId, Status
from milepost.domain.transitions import DELETABLE, TABLE, Transition
from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.refusals import refused
from tests.e2e.rpcs import ABOUT_ONE, RPCS

TRANSITIONS = {
    "StartOperation": Transition.START,
    "UpdateProgress": Transition.PROGRESS,
    "CompleteOperation": Transition.COMPLETE,
    "FailOperation": Transition.FAIL,
    "ReleaseOperation": Transition.RELEASE,
    "AcknowledgeCancellation": Transition.ACKNOWLEDGE,
    "CancelOperation": Transition.CANCEL,
    "DeleteOperation": Transition.PURGE,
}
READS = ("GetOperation", "WaitOperation", "WatchOperation", "ListEvents")
GRACE = duration_pb2.Duration(seconds=60)
BY_METHOD = {rpc.method: rpc for rpc in RPCS}
MAX_VALUES = {"expected_revision": 2**63 - 1, "attempt": 2**31 - 1}

methods = pytest.mark.parametrize("method", TRANSITIONS)


def sources(method: str) -> frozenset[Status]:
    """Return the statuses from which the method can be called."""
    transition = TRANSITIONS[method]
    return DELETABLE if transition is Transition.PURGE else TABLE[transition].sources


def ready(client, method: str, status: str | None = None):
    """Return an operation in a status, or one from which the method can be called."""
    operation = client.create_in(status or legal_start(method))
    if method == "AcknowledgeCancellation" and status in {None, "PROCESSING"}:
        operation = client.transition("CancelOperation", operation.id, grace=GRACE)
    return operation


def legal_start(method: str) -> str:
    """Return a status from which the method can be called."""
    return max(sources(method))


def call(client, method: str, operation_id: str, **fields):
    """Return the response of the method to a complete request."""
    rpc = BY_METHOD[method]
    return client.send(rpc, rpc.about(operation_id, **fields))


def has(method: str, field: str) -> bool:
    """Return True if the request of the method has the field."""
    return field in BY_METHOD[method].request.DESCRIPTOR.fields_by_name


def test_every_rpc_about_one_operation_is_a_transition_or_a_read():
    """These tests cover every RPC that changes an operation; those of Google have their own."""
    ours = {rpc.method for rpc in ABOUT_ONE if not rpc.is_google}
    assert ours == {*TRANSITIONS, *READS}


def test_every_changing_rpc_has_the_preconditions():
    """Every RPC that changes an operation takes a request_id and an expected_revision."""
    for method in TRANSITIONS:
        assert has(method, "request_id")
        assert has(method, "expected_revision")


@methods
@pytest.mark.parametrize("status", list(Status))
def test_transition_table(alice, stored, method, status):
    """Every transition from every status is applied, or refused with the allowed statuses."""
    operation = ready(alice, method, status)
    rule = TABLE[TRANSITIONS[method]]
    if status in sources(method):
        response = call(alice, method, operation.id)
        if rule.target is not None:
            moved = response.operation
            assert moved.status == pb.OperationStatus.Value(f"OPERATION_STATUS_{rule.target}")
            assert moved.revision == operation.revision + 1
            assert not response.replayed
        return
    before = stored.everything(OperationId(operation.id))
    with refused(StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION") as refusal:
        call(alice, method, operation.id)
    allowed = sorted(sources(method))
    assert refusal.facts == {
        "transition": TRANSITIONS[method],
        "status": status,
        "allowed": ",".join(allowed),
    }
    for fact in (status, *allowed):
        assert fact in refusal.message
    assert stored.everything(OperationId(operation.id)) == before


@methods
@pytest.mark.parametrize("offset", [-1, 1])
def test_expected_revision(alice, method, offset):
    """A transition with another expected_revision is ABORTED with both, and changes nothing."""
    operation = ready(alice, method)
    wrong = operation.revision + offset or MAX_VALUES["expected_revision"]
    with refused(StatusCode.ABORTED, "REVISION_MISMATCH") as refusal:
        call(alice, method, operation.id, expected_revision=wrong)
    assert refusal.facts == {"expected": str(wrong), "actual": str(operation.revision)}
    assert alice.get(operation.id) == operation
    call(alice, method, operation.id, expected_revision=operation.revision)


@pytest.mark.parametrize("method", [name for name in TRANSITIONS if has(name, "attempt")])
@pytest.mark.parametrize("wrong", [2, MAX_VALUES["attempt"]])
def test_attempt(alice, method, wrong):
    """A write of another attempt is ABORTED with both, and changes nothing."""
    operation = ready(alice, method, "PROCESSING")
    with refused(StatusCode.ABORTED, "STALE_ATTEMPT") as refusal:
        call(alice, method, operation.id, attempt=wrong)
    assert refusal.facts == {"expected": str(wrong), "actual": "1"}
    assert alice.get(operation.id) == operation
    call(alice, method, operation.id, attempt=1)


@pytest.mark.parametrize(
    ("method", "field"),
    [(name, field) for name in TRANSITIONS for field in MAX_VALUES if has(name, field)],
)
def test_preconditions_are_positive(alice, method, field):
    """A revision or an attempt below 1 is malformed."""
    operation = ready(alice, method)
    for value in (0, -1, -MAX_VALUES[field] - 1):
        with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
            call(alice, method, operation.id, **{field: value})
        assert set(refusal.violations) == {field}
    with refused(StatusCode.ABORTED):
        call(alice, method, operation.id, **{field: MAX_VALUES[field]})


def test_stale_revision_is_refused_before_the_status(alice):
    """A stale revision is refused as such, before the status is checked."""
    operation = alice.create_in("PROCESSING")
    alice.transition("CompleteOperation", operation.id)
    with refused(StatusCode.ABORTED, "REVISION_MISMATCH"):
        call(alice, "FailOperation", operation.id, expected_revision=operation.revision)


@methods
def test_transition_can_be_repeated(alice, stored, method):
    """A transition with the same request_id is applied once; its repetition is a replay."""
    operation = ready(alice, method)
    first = call(alice, method, operation.id, request_id="once")
    before = stored.everything(OperationId(operation.id))
    again = call(alice, method, operation.id, request_id="once")
    assert stored.everything(OperationId(operation.id)) == before
    if method != "DeleteOperation":
        assert (first.replayed, again.replayed) == (False, True)
        assert again.operation == first.operation


@methods
def test_repetition_passes_its_own_preconditions(alice, method):
    """A repetition is answered although it raised the revision that it expects itself."""
    operation = ready(alice, method)
    preconditions = {"request_id": "once", "expected_revision": operation.revision}
    call(alice, method, operation.id, **preconditions)
    call(alice, method, operation.id, **preconditions)


@pytest.mark.parametrize("method", ["StartOperation", "UpdateProgress"])
def test_repetition_returns_the_current_operation(alice, method):
    """A repetition after later transitions returns the current operation."""
    operation = alice.create_in("PENDING")
    call(alice, method, operation.id, request_id="once")
    done = alice.transition("CompleteOperation", operation.id)
    again = call(alice, method, operation.id, request_id="once")
    assert again.replayed
    assert again.operation == done


@pytest.mark.parametrize("method", [name for name in TRANSITIONS if name != "DeleteOperation"])
def test_other_request_id_is_another_call(alice, method):
    """A second transition with another or no request_id is checked against the table."""
    operation = ready(alice, method)
    call(alice, method, operation.id, request_id="once")
    if method == "UpdateProgress":
        assert call(alice, method, operation.id, request_id="twice").operation.revision == 4
        return
    for fields in ({"request_id": "twice"}, {}):
        with refused(StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"):
            call(alice, method, operation.id, **fields)


def test_second_delete_without_request_id(alice):
    """A second delete without a request_id is NOT_FOUND."""
    operation = alice.create_in("COMPLETED")
    call(alice, "DeleteOperation", operation.id, request_id="once")
    for fields in ({}, {"request_id": "twice"}):
        with refused(StatusCode.NOT_FOUND, "OPERATION_DELETED"):
            call(alice, "DeleteOperation", operation.id, **fields)


def test_request_ids_are_those_of_one_operation(alice):
    """The same request_id on another operation is another call."""
    operations = [alice.create() for _ in range(2)]
    for operation in operations:
        response = call(alice, "StartOperation", operation.id, request_id="once")
        assert not response.replayed


def test_request_ids_are_those_of_one_subject(alice, worker):
    """A request_id of another subject is not a repetition, and reveals nothing."""
    operation = alice.create()
    call(worker, "StartOperation", operation.id, request_id="once")
    call(worker, "CompleteOperation", operation.id, request_id="done")
    with refused(StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"):
        call(alice, "CompleteOperation", operation.id, request_id="done")


@pytest.mark.parametrize("method", ["StartOperation", "CompleteOperation", "CancelOperation"])
def test_one_of_many_wins(alice, method):
    """Of many equal concurrent transitions exactly one is applied, the others are refused."""
    operation = ready(alice, method)
    calls = [alice.future(method, operation_id=operation.id) for _ in range(10)]
    codes = sorted((future.code() for future in calls), key=str)
    assert codes == [StatusCode.FAILED_PRECONDITION] * 9 + [StatusCode.OK]
    assert alice.get(operation.id).revision == operation.revision + 1


@methods
def test_concurrent_repetitions_make_one_transition(alice, method):
    """Of many concurrent calls with one request_id exactly one changes the operation."""
    operation = ready(alice, method)
    more = {"errors": [pb.OperationError(code="A", message="b")]} if method[:4] == "Fail" else {}
    calls = [
        alice.future(method, operation_id=operation.id, request_id="once", **more)
        for _ in range(10)
    ]
    responses = [future.result() for future in calls]
    if method != "DeleteOperation":
        assert [response.replayed for response in responses].count(False) == 1
        assert alice.get(operation.id).revision == operation.revision + 1
