"""The life of an operation over HTTP, and what HTTP has headers for."""

import threading
import uuid

from tests.e2e.http.exchange import http_of
from tests.waiting import eventually

PENDING = "OPERATION_STATUS_PENDING"
COMPLETED = "OPERATION_STATUS_COMPLETED"
VALUE = {"@type": "type.googleapis.com/google.protobuf.Value", "value": {"frames": 240}}
FOREIGN = {"@type": "type.example.com/acme.Frames", "value": "CPAB"}


def path(created) -> str:
    """Return the path of a created operation."""
    location: str = created.headers["location"]
    assert location == f"/v1/operations/{created.json['id']}"
    return location


def create(http, **fields):
    """Create an operation and return the response."""
    return http("POST", "/v1/operations", {"function": "video.transcode"} | fields)


def test_create_says_where_and_when_to_poll(http_alice):
    """A create is accepted with a place, a revision, and the pause before the next poll."""
    created = create(http_alice, retry_after="2.5s", metadata={"n": [1, None, "ü"]})
    assert created.status == 202
    assert created.headers["retry-after"] == "3"
    assert created.headers["cache-control"] == "no-store"
    polled = http_alice("GET", path(created))
    assert polled.status == 200
    assert polled.json == created.json
    assert polled.json["status"] == PENDING
    assert polled.json["retryAfter"] == "2.500s"
    assert polled.json["metadata"] == {"n": [1, None, "ü"]}
    assert polled.headers["etag"] == f'"{polled.json["revision"]}"' == created.headers["etag"]


def test_unchanged_operation_is_not_sent_again(http_alice, alice):
    """A poll with the known ETag is 304 until the operation changes."""
    created = create(http_alice)
    same = http_alice("GET", path(created), If_None_Match=f'"0", W/{created.headers["etag"]}')
    assert (same.status, same.body) == (304, b"")
    assert same.headers["retry-after"] == created.headers["retry-after"]
    alice.transition("StartOperation", created.json["id"])
    changed = http_alice("GET", path(created), If_None_Match=created.headers["etag"])
    assert changed.status == 200
    assert changed.headers["etag"] != created.headers["etag"]


def test_ended_operation_has_no_next_poll(http_alice):
    """Once it has ended, an operation has no Retry-After, and its result is readable JSON."""
    place = path(create(http_alice))
    http_alice("POST", f"{place}:start")
    assert http_alice("POST", f"{place}:complete", {"result": VALUE}).status == 200
    ended = http_alice("GET", place)
    assert "retry-after" not in ended.headers
    assert (ended.json["status"], ended.json["result"]) == (COMPLETED, VALUE)


def test_result_of_an_unknown_type_comes_back_as_it_was(http_alice):
    """A packed message of a type that the service does not know passes as base64."""
    place = path(create(http_alice))
    http_alice("POST", f"{place}:start")
    assert http_alice("POST", f"{place}:complete", {"result": FOREIGN}).json["result"] == FOREIGN


def test_repeated_create_returns_the_first_operation(http_alice):
    """Idempotency-Key is the request_id: a repeated create is marked and creates nothing."""
    key = uuid.uuid4().hex
    body = {"function": "video.transcode"}
    first = http_alice("POST", "/v1/operations", body, Idempotency_Key=f'"{key}"')
    second = http_alice("POST", "/v1/operations", body, Idempotency_Key=key)
    assert second.json["id"] == first.json["id"]
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    other = http_alice("POST", "/v1/operations", {"function": "other"}, Idempotency_Key=key)
    assert other.refusal == (409, "REQUEST_ID_REUSED")


def test_repeated_rotation_is_marked(http_alice):
    """A response that repeats an earlier one says so, also if it is no operation."""
    key = uuid.uuid4().hex
    first, second = (
        http_alice("POST", "/v1/signingSecret:rotate", Idempotency_Key=key) for _ in range(2)
    )
    assert second.json["current"] == first.json["current"]
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"


def test_joined_create_is_marked(http_alice):
    """A create that joins another operation by its unique_key says so in a header."""
    key = uuid.uuid4().hex
    first, second = (create(http_alice, unique_key=key) for _ in range(2))
    assert second.json["id"] == first.json["id"]
    assert second.headers["milepost-joined"] == "true"


def test_change_needs_the_expected_revision(http_alice):
    """If-Match is the expected_revision; another revision is 412."""
    created = create(http_alice)
    stale = http_alice("POST", f"{path(created)}:cancel", If_Match='"99"')
    assert stale.refusal == (412, "REVISION_MISMATCH")
    assert stale.json["metadata"] == {"expected": "99", "actual": created.json["revision"]}
    fresh = http_alice("POST", f"{path(created)}:cancel", If_Match=created.headers["etag"])
    assert fresh.json["status"] == "OPERATION_STATUS_CANCELLED"


def test_any_tag(http_alice):
    """The condition `*` is that there is an operation (RFC 9110, 13.1)."""
    created = create(http_alice)
    assert http_alice("POST", f"{path(created)}:cancel", If_Match="*").status == 200
    missing = http_alice("POST", f"/v1/operations/op_{24 * '0'}:cancel", If_Match="*")
    assert missing.refusal == (404, "OPERATION_NOT_FOUND")
    unchanged = http_alice("GET", path(created), If_None_Match="*")
    assert (unchanged.status, unchanged.body) == (304, b"")


def test_head(http_alice):
    """HEAD has the headers of GET without its body, on a connection that goes on."""
    created = create(http_alice)
    for place in (path(created), "/v1/operations?page_size=1", f"{path(created)}/events"):
        shown, head = http_alice("GET", place), http_alice("HEAD", place)
        assert (head.status, head.body) == (200, b"")
        kept = ("etag", "retry-after", "content-type", "content-length")
        assert [head.headers.get(name) for name in kept] == [
            shown.headers.get(name) for name in kept
        ]
    assert http_alice("HEAD", path(created), If_None_Match='"1"').status == 304
    assert http_alice("HEAD", f"{path(created)}:watch").status == 405


def test_preferred_wait_ends_with_a_change(any_service, http_alice, alice):
    """A poll with Prefer: wait is answered when the operation changes."""
    created = create(http_alice)
    answers = []
    other = http_of(any_service, alice)
    poll = threading.Thread(
        target=lambda: answers.append(other("GET", path(created), Prefer="wait=60"))
    )
    poll.start()
    eventually(lambda: any_service.metric("milepost_rpcs_running"), within=10, what="it waits")
    alice.transition("StartOperation", created.json["id"])
    poll.join()
    other.close()
    assert answers[0].json["revision"] > created.json["revision"]


def test_wait_returns_the_ended_operation(http_alice, alice):
    """A wait returns at once if the operation has ended, and after its timeout if not."""
    created = create(http_alice)
    assert http_alice("POST", f"{path(created)}:wait", {"timeout": "0s"}).json["status"] == PENDING
    alice.transition("CancelOperation", created.json["id"])
    ended = http_alice("POST", f"{path(created)}:wait")
    assert ended.json["status"] == "OPERATION_STATUS_CANCELLED"


def test_list_takes_repeated_parameters(http_alice):
    """The filters of a list stand in the query; pages are followed by their token."""
    ids = [create(http_alice).json["id"] for _ in range(3)]
    query = f"statuses={PENDING}&statuses=OPERATION_STATUS_FAILED&pageSize=2"
    first = http_alice("GET", f"/v1/operations?{query}").json
    token = first["nextPageToken"]
    second = http_alice("GET", f"/v1/operations?{query}&page_token={token}").json
    found = [each["id"] for page in (first, second) for each in page["operations"]]
    assert found == ids[::-1]
    events = http_alice("GET", f"/v1/operations/{ids[0]}/events").json["events"]
    assert [event["revision"] for event in events] == ["1"]


def test_worker_claims_and_reports(http_alice, http_worker, function):
    """A worker claims, reports and completes over HTTP."""
    created = create(http_alice, function=function)
    claimed = http_worker("POST", "/v1/operations:claim", {"functions": [function], "worker": "w"})
    (operation,) = claimed.json["operations"]
    assert operation["id"] == created.json["id"]
    place = path(created)
    update = {"attempt": operation["attempt"], "progress": 0.5, "message": "half"}
    assert http_worker("POST", f"{place}:updateProgress", update).json["progress"] == 0.5
    done = http_worker("POST", f"{place}:complete", {"attempt": operation["attempt"]})
    assert done.json["status"] == COMPLETED


def test_deleted_operation_has_gone(http_alice):
    """A delete answers with an empty object; the owner then learns that it was deleted."""
    place = path(create(http_alice))
    http_alice("POST", f"{place}:cancel")
    deleted = http_alice("DELETE", place)
    assert (deleted.status, deleted.json) == (200, {})
    assert http_alice("GET", place).refusal == (404, "OPERATION_DELETED")
