"""WaitOperation, WatchOperation and reads that wait, over the wire."""

import signal
import threading
import time
from datetime import timedelta

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc import StatusCode

from milepost.domain.operation import OperationId
from milepost_client import RevisionAhead
from tests import factories
from tests.e2e.refusals import refused
from tests.e2e.rpcs import CALL_SECONDS, RPCS
from tests.e2e.service import Service
from tests.machine import slowdown
from tests.waiting import eventually

GET, WAIT = (
    next(rpc for rpc in RPCS if rpc.method == name) for name in ("GetOperation", "WaitOperation")
)
SOON_S = 8.0
DEADLINE_S = 3.0
"""A deadline that leaves the answer as much time as any."""
EXPIRED_WITHIN_S = 10.0


def length(seconds):
    """Return a duration as a message."""
    duration = duration_pb2.Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


def held(client, operation_id, preference, deadline=CALL_SECONDS):
    """Start a read with this preference and return its future."""
    metadata = (*client.metadata, ("prefer", preference))
    request = GET.about(operation_id)
    return GET.on(client.channel).future(request, metadata=metadata, timeout=deadline)


def waited(client, operation_id, deadline=CALL_SECONDS, **fields):
    """Start a wait and return its future."""
    request = WAIT.request(operation_id=operation_id, **fields)
    return WAIT.on(client.channel).future(request, metadata=client.metadata, timeout=deadline)


class Reader:
    """A reader of a watch, in the background."""

    def __init__(self, client, operation_id, after_revision=0):
        self.items = []
        self.code = None
        self.call = client.watch(client.channel, operation_id, after_revision)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            for item in self.call:
                self.items.append(item)
        except grpc.RpcError:
            pass
        self.code = self.call.code()

    @property
    def operations(self):
        """The operations received so far."""
        return [item.operation for item in self.items if item.HasField("operation")]

    def has_read(self, count):
        """Wait until so many operations are received."""
        eventually(lambda: len(self.operations) >= count, within=SOON_S, what=f"{count} items")
        return self.operations

    def ended(self, within=SOON_S):
        """Return the code with which the stream has ended."""
        self._thread.join(within)
        assert not self._thread.is_alive(), "the stream goes on"
        return self.code


@pytest.fixture
def own_service(database_url, tmp_path):
    """A service with frequent keep-alives that the test may stop, on each database."""
    service = Service(database_url, tmp_path, keep_alive_seconds="0.05", wait_seconds_max="0.2")
    service.start()
    yield service
    service.kill()


def test_wait_ends_with_the_operation(alice):
    """A wait is answered when the operation ends, and not before."""
    operation = alice.create_in("PROCESSING")
    answer = waited(alice, operation.id)
    alice.transition("UpdateProgress", operation.id, progress=0.5)
    done = alice.transition("CompleteOperation", operation.id)
    assert answer.result(SOON_S).operation == done


def test_wait_is_answered_in_time(alice):
    """A wait is answered at its timeout, and before the deadline of the call."""
    operation = alice.create()
    for fields in ({"timeout": length(0)}, {"timeout": length(0.05)}, {"deadline": DEADLINE_S}):
        assert waited(alice, operation.id, **fields).result(SOON_S).operation == operation


def test_wait_of_less_than_nothing_is_refused(alice):
    """A negative timeout, and a watch after a negative revision, are refused."""
    operation = alice.create()
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        waited(alice, operation.id, timeout=length(-1)).result()
    assert set(refusal.violations) == {"timeout"}
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        next(alice.watch(alice.channel, operation.id, -1))
    assert set(refusal.violations) == {"after_revision"}


def test_held_answer_comes_with_the_change(alice):
    """A read that prefers to wait is answered at the first change, or in time without one."""
    operation = alice.create()
    answer = held(alice, operation.id, "respond-async, Wait=15")
    reader = Reader(alice, operation.id)
    reader.has_read(1)
    started = alice.transition("StartOperation", operation.id)
    assert answer.result(SOON_S).operation in (operation, started)
    assert held(alice, operation.id, "wait=1").result(SOON_S).operation == started
    start = time.monotonic()
    assert held(alice, operation.id, "wait=60", deadline=DEADLINE_S).result().operation == started
    assert time.monotonic() - start > 0.5
    for preference in ("wait=", "wait=-1", "wait=soon", "waiting=9", "wait"):
        assert held(alice, operation.id, preference).result(SOON_S).operation == started
    reader.call.cancel()


def test_watch_sends_every_change_to_the_end(alice):
    """A watch sends the current operation, then each change, and ends with the terminal one."""
    operation = alice.create(metadata={"a": 1})
    reader = Reader(alice, operation.id)
    changes = [reader.has_read(1)[0]]
    steps = [
        ("StartOperation", {}),
        ("UpdateProgress", {"progress": 0.5}),
        ("CompleteOperation", {}),
    ]
    for count, (method, fields) in enumerate(steps, start=2):
        changes.append(alice.transition(method, operation.id, **fields))
        reader.has_read(count)
    assert reader.ended() is StatusCode.OK
    assert [o.revision for o in reader.operations] == [1, 2, 3, 4]
    assert reader.operations[-1] == changes[-1]
    assert reader.operations[0] == operation


def test_watch_resumes_after_a_cut(alice):
    """A watch resumed after the last seen revision misses no status and repeats none."""
    operation = alice.create_in("COMPLETED")
    for after, revisions in ((0, [3]), (1, [2, 3]), (2, [3]), (3, [])):
        reader = Reader(alice, operation.id, after)
        assert reader.ended() is StatusCode.OK
        assert [o.revision for o in reader.operations] == revisions
    cut = Reader(alice, alice.create().id)
    cut.has_read(1)
    cut.call.cancel()
    assert cut.ended() is StatusCode.CANCELLED


@pytest.mark.parametrize("status", ["PROCESSING", "CANCELLED"])
def test_watch_after_a_revision_of_the_future_is_refused(alice, status):
    """A watch after a revision that was never reached is refused with both revisions."""
    operation = alice.create_in(status)
    with refused(StatusCode.OUT_OF_RANGE, "REVISION_AHEAD") as refusal:
        next(alice.watch(alice.channel, operation.id, 99))
    assert refusal.facts == {"requested": "99", "actual": str(operation.revision)}


async def test_client_raises_it(caller):
    """The client raises an error of its own for a revision that was never reached."""
    operation = await caller.create("test.watch")
    with pytest.raises(RevisionAhead) as caught:
        await anext(caller.watch(operation.id, after_revision=99))
    assert caught.value.metadata == {"requested": "99", "actual": "1"}


def test_watched_operation_may_expire(any_service, alice):
    """Waits and watches of an owner end with OPERATION_EXPIRED when the operation expires."""
    expiring = alice.create()
    reader = Reader(alice, expiring.id)
    reader.has_read(1)
    answer = waited(alice, expiring.id)
    factories.age(any_service.engine, OperationId(expiring.id), timedelta(days=2))
    assert reader.ended(EXPIRED_WITHIN_S) is StatusCode.NOT_FOUND
    with refused(StatusCode.NOT_FOUND, "OPERATION_EXPIRED"):
        answer.result()
    with refused(StatusCode.NOT_FOUND, "OPERATION_EXPIRED"):
        next(alice.watch(alice.channel, expiring.id))


def test_idle_stream_carries_keep_alives(own_service):
    """A stream without changes carries keep-alives at the configured interval."""
    alice = own_service.client("alice")
    operation = alice.create()
    reader = Reader(alice, operation.id)
    eventually(lambda: len(reader.items) > 3, within=SOON_S, what="keep-alives")
    assert [item.WhichOneof("item") for item in reader.items[:3]] == [
        "operation",
        "keep_alive",
        "keep_alive",
    ]
    assert waited(alice, operation.id).result(SOON_S).operation == operation
    reader.call.cancel()


def test_drain_ends_waits_and_watches(database_url, tmp_path):
    """A stopping replica ends waits and watches, and its stop is not delayed by them."""
    with Service(database_url, tmp_path) as service:
        alice = service.client("alice")
        operation = alice.create()
        reader = Reader(alice, operation.id)
        reader.has_read(1)
        answer = waited(alice, operation.id)
        eventually(
            lambda: service.metric("milepost_rpcs_running") == 2, within=SOON_S, what="both run"
        )
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        assert answer.result(SOON_S).operation == operation
        assert reader.ended() is StatusCode.UNAVAILABLE
        assert "stopping" in reader.call.details()
        assert service.end() == 0
        assert time.monotonic() - start < SOON_S * slowdown()
