"""Watches over HTTP, as a browser sees them: server-sent events on raw connections."""

import signal
from itertools import pairwise

import sqlalchemy as sa
from grpc import StatusCode

from milepost.storage.tables import operations
from tests.canaries import CANARIES
from tests.e2e.client import Client
from tests.e2e.http.exchange import EventStream, RawHttp, http_of
from tests.e2e.refusals import refused
from tests.e2e.service import Service
from tests.waiting import eventually

SOON_S = 10.0
COMPLETED = "OPERATION_STATUS_COMPLETED"


def watch(service: Service, client: Client, operation_id: str, **headers: str) -> EventStream:
    """Begin to watch."""
    return EventStream(RawHttp(service), client.key, operation_id, **headers)


def test_watch_sends_each_change_until_the_end(any_service, alice):
    """A watch begins with the operation as it is, and ends after the terminal change."""
    operation = alice.create()
    with watch(any_service, alice, operation.id) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-accel-buffering"] == "no"
        events = stream.events()
        assert next(events).data["status"] == "OPERATION_STATUS_PENDING"
        alice.transition("StartOperation", operation.id)
        assert next(events).data["status"] == "OPERATION_STATUS_PROCESSING"
        alice.transition("CompleteOperation", operation.id)
        last, *more = events
    assert (last.type, last.data["status"], more) == ("operation", COMPLETED, [])
    assert last.id == last.data["revision"]


def test_watch_resumes_after_the_last_event(any_service, alice):
    """Last-Event-ID continues after the revision, also against the URL that it began with."""
    operation = alice.create_in("COMPLETED")
    with watch(any_service, alice, operation.id, Last_Event_ID="1") as stream:
        found = list(stream.events())
    assert [event.data["status"].rpartition("_")[2] for event in found] == [
        "PROCESSING",
        "COMPLETED",
    ]
    assert all(int(a.id) < int(b.id) for a, b in pairwise(found))
    resumed = f"{operation.id}:watch?after_revision=1"
    last = f"Last-Event-ID: {operation.revision}"
    with RawHttp(any_service) as raw:
        raw.send("GET", f"/v1/operations/{resumed}", f"Authorization: Bearer {alice.key}", last)
        assert raw.status() == 204


def test_browser_is_told_not_to_come_back_after_the_end(any_service, alice):
    """Once the end has been seen, a watch is 204, after which a browser does not reconnect."""
    operation = alice.create_in("COMPLETED")
    with watch(any_service, alice, operation.id, Last_Event_ID=str(operation.revision)) as stream:
        assert stream.status == 204


def test_refused_watch_is_a_problem(alice, http_alice):
    """A watch of a missing operation, or ahead of its revision, is refused with its status."""
    operation = alice.create()
    missing = http_alice("GET", f"/v1/operations/op_{24 * '0'}:watch")
    assert missing.refusal == (404, "OPERATION_NOT_FOUND")
    ahead = http_alice("GET", f"/v1/operations/{operation.id}:watch", Last_Event_ID="99")
    assert ahead.refusal == (400, "REVISION_AHEAD")


def test_refusal_in_the_middle_is_an_event(any_service, alice, stored):
    """If the operation vanishes during a watch, the last event is a problem document."""
    operation = alice.create()
    with watch(any_service, alice, operation.id) as stream:
        events = stream.events()
        assert next(events).type == "operation"
        stored.execute(
            sa.update(operations)
            .where(operations.c.id == operation.id)
            .values(owner="mallory", revision=operations.c.revision + 1)
        )
        (last,) = events
    assert (last.type, last.id) == ("error", "")
    assert last.data["status"] == 404
    assert last.data["reason"].startswith("OPERATION_")


def test_quiet_watch_is_kept_alive(own_service):
    """A quiet watch sends comments, which are no events."""
    alice = own_service.client("alice")
    operation = alice.create()
    with watch(own_service, alice, operation.id, Last_Event_ID="1") as stream:
        lines = stream.connection.lines()
        assert [next(lines) for _ in range(4)] == 2 * [": keep-alive", ""]


def test_watch_of_a_caller_that_hangs_up_ends(own_service):
    """The service notices that a watcher has gone, before and after the first event."""
    alice = own_service.client("alice")
    operation = alice.create()
    for last in ("0", "1"):
        with watch(own_service, alice, operation.id, Last_Event_ID=last) as stream:
            assert stream.status == 200
            assert own_service.metric("milepost_rpcs_running") >= 1
        raw = RawHttp(own_service)
        auth = f"Authorization: Bearer {alice.key}"
        raw.send("GET", f"/v1/operations/{operation.id}:watch", auth, f"Last-Event-ID: {last}")
        raw.__exit__(None, None, None)
    running = eventually(
        lambda: own_service.metric("milepost_rpcs_running") == 0, within=SOON_S, what="all ended"
    )
    assert running
    assert own_service.log_lines(event="internal error") == []


def test_drain_ends_watches_and_refuses_calls(own_service):
    """At SIGTERM a watch ends with an event that says so, and a kept connection gets 503."""
    alice = own_service.client("alice")
    operation = alice.create()
    http = http_of(own_service, alice)
    assert http("GET", f"/v1/operations/{operation.id}").status == 200
    with watch(own_service, alice, operation.id) as stream:
        events = stream.events()
        next(events)
        own_service.process.send_signal(signal.SIGTERM)
        *_, last = events
    assert (last.type, last.id) == ("error", "")
    assert (last.data["status"], last.data["reason"]) == (503, "DRAINING")
    http.close()
    assert own_service.end() == 0


def test_watch_resumes_after_the_service_was_killed(own_service):
    """After kill -9 a watcher continues with its last event, and misses no status change."""
    alice = own_service.client("alice")
    operation = alice.create()
    with watch(own_service, alice, operation.id) as stream:
        last = next(stream.events())
        own_service.kill()
    own_service.start()
    alice.transition("StartOperation", operation.id)
    alice.transition("CompleteOperation", operation.id)
    with watch(own_service, alice, operation.id, Last_Event_ID=last.id) as stream:
        statuses = [event.data["status"] for event in stream.events()]
    assert statuses == ["OPERATION_STATUS_PROCESSING", COMPLETED]


def test_claim_of_a_caller_that_hangs_up_goes_back(own_service, function):
    """Work that arrives for a claimer that has hung up is there for the next one."""
    alice, worker = own_service.client("alice"), own_service.worker()
    body = b'{"functions": ["%s"], "timeout": "60s"}' % function.encode()
    headers = [f"Authorization: Bearer {worker.key}", "Content-Type: application/json"]
    with RawHttp(own_service) as raw:
        length = f"Content-Length: {len(body)}"
        raw.send("POST", "/v1/operations:claim", *headers, length, body=body)
        eventually(
            lambda: own_service.metric("milepost_rpcs_running") == 1,
            within=SOON_S,
            what="the claim waits",
        )
    eventually(
        lambda: own_service.metric("milepost_rpcs_running") == 0, within=SOON_S, what="it ended"
    )
    operation = alice.create(function=function)
    claimed = worker.call("ClaimOperations", functions=[function]).operations
    assert [each.id for each in claimed] == [operation.id]


def test_token_in_the_query_is_off(any_service, alice):
    """By default a credential in the query does not count, because proxies log it."""
    operation = alice.create()
    path = f"/v1/operations/{operation.id}:watch?access_token={alice.key}"
    with RawHttp(any_service) as raw:
        raw.send("GET", path)
        assert raw.status() == 401
    CANARIES.guard("a key in the query", alice.key)


def test_token_in_the_query_is_for_watches_only(sqlite_url, tmp_path):
    """With the setting a watch takes its credential from the query, and no other call does."""
    with Service(sqlite_url, tmp_path, http_token_in_query="true") as service:  # noqa: S106
        alice = service.client("alice")
        operation = alice.create_in("COMPLETED")
        place = f"/v1/operations/{operation.id}"
        token = f"access_token={alice.key}"
        auth = f"Authorization: Bearer {alice.key}"
        for path, headers, status in (
            (f"{place}:watch?{token}", [], 200),
            (f"{place}:watch?after_revision=1&{token}", [], 200),
            (f"{place}:watch?access_token=wrong", [], 401),
            (f"{place}:watch?access_token=", [], 401),
            (f"{place}:watch?{token}&{token}", [], 401),
            (f"{place}:watch?{token}", [auth], 401),
            (f"{place}?{token}", [], 401),
            (f"/v1/operations?{token}", [], 401),
            (f"{place}?{token}", [auth], 400),
        ):
            with RawHttp(service) as raw:
                raw.send("GET", path, *headers)
                assert raw.status() == status, path
        assert alice.key not in service.log()
        with refused(StatusCode.NOT_FOUND):
            alice.get(f"op_{24 * '0'}")
