"""Requests that HTTP, or their JSON, makes invalid: always a problem document, never a 500."""

import gzip
import json

import pytest

from tests.canaries import CANARIES
from tests.e2e.http.exchange import RawHttp

INVALID = (400, "INVALID_REQUEST")
UNAUTHENTICATED = (401, "UNAUTHENTICATED")
OPERATIONS = "/v1/operations"
BODIES = {
    "no JSON": b"{",
    "not UTF-8": b'{"function": "\xff"}',
    "text": b'"video"',
    "null": b"null",
    "list": b"[]",
    "constant": b'{"function": "f", "metadata": {"n": NaN}}',
    "unknown field": b'{"function": "f", "colour": "red"}',
    "repeated name": b'{"function": "f", "function": "g"}',
    "two spellings": b'{"function": "f", "requestId": "a", "request_id": "b"}',
    "lone surrogate": rb'{"function": "\ud800"}',
    "lone surrogate in a name": rb'{"\udfff": 1}',
    "lone surrogate in metadata": rb'{"function": "f", "metadata": {"a": "\ud800"}}',
    "lone surrogate in a name of metadata": rb'{"function": "f", "metadata": {"\ud800": 1}}',
    "deep lists": b'{"function": "f", "metadata": ' + 5_000 * b"[" + 5_000 * b"]" + b"}",
    "deep metadata": b'{"function": "f", "metadata": ' + 99 * b'{"a":' + b"1" + 99 * b"}" + b"}",
    "huge number": b'{"function": "f", "priority": ' + 5_000 * b"9" + b"}",
    "infinite number": b'{"function": "f", "metadata": {"n": 1e999}}',
    "number for a text": b'{"function": 7}',
    "text for a message": b'{"function": "f", "retry_policy": "never"}',
    "object for a duration": b'{"function": "f", "ttl": {"seconds": 5}}',
    "unknown enum": b'{"function": "f", "unique_key_policy": "MAYBE"}',
    "beginning of a byte order mark": b"\xef\xbb{}",
}


@pytest.mark.parametrize("name", BODIES)
def test_invalid_body_is_refused(http_alice, name):
    """A body that is not the JSON of the request is 400, and the refusal says why."""
    answer = http_alice("POST", OPERATIONS, BODIES[name])
    assert answer.refusal == INVALID
    assert answer.json["violations"]
    assert len(answer.body) < 4_096


@pytest.mark.parametrize(
    "result",
    [
        7,
        "text",
        [],
        {},
        {"@type": 7},
        {"@type": "", "value": ""},
        {"@type": "type.example.com/acme.Frames"},
        {"@type": "type.example.com/acme.Frames", "value": "%"},
        {"@type": "type.example.com/acme.Frames", "value": 7},
        {"@type": "type.example.com/acme.Frames", "value": "", "more": 1},
        {"@type": "type.example.com/\ud800", "value": ""},
        {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "soon"},
        {"@type": "type.googleapis.com/google.protobuf.Any", "value": {"@type": "a/b.C"}},
        {"@type": "type.googleapis.com/milepost.v1.Operation", "colour": "red"},
    ],
    ids=json.dumps,
)
def test_invalid_result_is_refused(http_alice, alice, result):
    """A malformed packed message is 400, and the operation goes on."""
    operation = alice.create_in("PROCESSING")
    path = f"{OPERATIONS}/{operation.id}:complete"
    assert http_alice("POST", path, {"result": result}).refusal == INVALID
    assert alice.get(operation.id).revision == operation.revision


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("colour=red", "has no parameter colour"),
        ("page_size=ten", "page_size"),
        ("page_size=1&page_size=2", "must be given once"),
        ("pageSize=1&page_size=2", "must not be in the query too"),
        ("statuses=SOMETIMES", "statuses"),
        ("create_time_from=yesterday", "create_time_from"),
        ("%ED%A0%80=1", "has no parameter"),
        ("function=%00", "control characters"),
        ("access_token=x", "has no parameter access_token"),
    ],
)
def test_invalid_query_is_refused(http_alice, query, problem):
    """A parameter that is unknown, repeated or malformed is 400."""
    answer = http_alice("GET", f"{OPERATIONS}?{query}")
    assert answer.refusal == INVALID
    assert problem in answer.json["detail"]


@pytest.mark.parametrize(
    ("verb", "path", "headers"),
    [
        ("POST", ":cancel", {"If_Match": "3"}),
        ("POST", ":cancel", {"If_Match": 'W/"3"'}),
        ("POST", ":cancel", {"If_Match": '"x"'}),
        ("POST", ":cancel", {"Idempotency_Key": ""}),
        ("POST", ":cancel", {"Idempotency_Key": "\xff"}),
        ("GET", ":watch", {"Last_Event_ID": "x"}),
        ("GET", ":watch", {"Last_Event_ID": "-1"}),
        ("POST", ":cancel?reason=x", {}),
        ("GET", "?operation_id=op_1", {}),
    ],
)
def test_invalid_header_is_refused(http_alice, alice, verb, path, headers):
    """A header that cannot be the field it stands for is 400, and nothing changes."""
    operation = alice.create()
    answer = http_alice(verb, f"{OPERATIONS}/{operation.id}{path}", **headers)
    assert answer.refusal == INVALID
    assert alice.get(operation.id).revision == operation.revision


@pytest.mark.parametrize("header", ["Idempotency-Key: a", 'If-Match: "1"'])
def test_repeated_header_is_refused(any_service, alice, header):
    """Of two values of a header none counts."""
    operation = alice.create()
    with RawHttp(any_service) as raw:
        auth = f"Authorization: Bearer {alice.key}"
        raw.send("POST", f"{OPERATIONS}/{operation.id}:cancel", auth, header, header)
        assert raw.status() == 400
        assert json.loads(raw.body())["violations"][0]["problem"] == "must be given once"


def test_field_in_two_places_is_refused(http_alice, alice):
    """A field that the body and a header, or the body and the path, give is ambiguous."""
    operation = alice.create()
    path = f"{OPERATIONS}/{operation.id}:cancel"
    twice = http_alice("POST", path, {"requestId": "a"}, Idempotency_Key="a")
    assert twice.refusal == INVALID
    assert http_alice("POST", path, {"operation_id": operation.id}).refusal == INVALID


def test_body_must_be_small_json(http_alice):
    """A large body is 413; one of another type, or compressed, is 415."""
    body = json.dumps({"function": 2_100_000 * "x"}).encode()
    assert http_alice("POST", OPERATIONS, body).refusal == (413, "")
    small = b'{"function": "f"}'
    answer = http_alice("POST", OPERATIONS, small, Content_Type="text/plain")
    assert answer.refusal == (415, "")
    plain = http_alice("POST", OPERATIONS, small, Content_Encoding="Identity")
    assert plain.status == 202
    packed = http_alice("POST", OPERATIONS, gzip.compress(small), Content_Encoding="gzip")
    assert packed.refusal == (415, "")


def test_path_and_verb_must_exist(http_alice):
    """A path without a method is 404, another verb 405 with those that exist."""
    assert http_alice("GET", "/v2/operations").refusal == (404, "")
    assert http_alice("GET", f"{OPERATIONS}/op_1:fly").refusal == (404, "")
    wrong = http_alice("PUT", OPERATIONS)
    assert wrong.refusal == (405, "")
    assert wrong.headers["allow"] == "GET,HEAD,POST"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Authorization: Bearer "],
        ["Authorization: Basic YTpi"],
        [b"Authorization: Bearer \xff\xfe"],
        ["Authorization: Bearer mp_0123456789abcdef_x", "Authorization: Bearer x"],
    ],
)
def test_invalid_credential_is_refused(any_service, headers):
    """Without one valid credential a request is 401, and says how to authenticate."""
    with RawHttp(any_service) as raw:
        raw.send("GET", OPERATIONS, *headers)
        assert raw.status() == 401
        sent = raw.headers()
        assert sent["www-authenticate"] == "Bearer"
        assert sent["cache-control"] == "no-store"


def test_two_good_credentials_are_none(any_service, alice):
    """Two credentials are refused even if both are good."""
    with RawHttp(any_service) as raw:
        raw.send("GET", OPERATIONS, *2 * [f"Authorization: Bearer {alice.key}"])
        assert raw.status() == 401


@pytest.mark.parametrize(
    "body", [b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}\r\n", b"2\r\n{}xx\r\n0\r\n\r\n"]
)
def test_malformed_chunks_are_refused(any_service, alice, body):
    """A body with malformed chunks is 400, without a defect in the log."""
    headers = (f"Authorization: Bearer {alice.key}", "Content-Type: application/json")
    with RawHttp(any_service) as raw:
        raw.send("POST", OPERATIONS, *headers, "Transfer-Encoding: chunked", body=body)
        assert raw.status() == 400


def test_odd_bytes_are_no_defect(any_service, alice):
    """Headers and paths that are not UTF-8 are refused without a defect in the log."""
    before = len(any_service.log_lines(event="internal error"))
    auth = f"Authorization: Bearer {alice.key}"
    for path, header in (
        (f"{OPERATIONS}/%ED%A0%80", "Prefer: wait=1"),
        (f"{OPERATIONS}/op_%FF%00", b"Prefer: \xff"),
        (f"{OPERATIONS}/x%2Fy", b"traceparent: \xff\xff"),
        (f"{OPERATIONS}/op_1:watch", b"Last-Event-ID: \xc3\x28"),
        (f"{OPERATIONS}?function=%C3%28", b"If-None-Match: \xff"),
        (f"{OPERATIONS}/op_1", b"Origin: \xff"),
    ):
        with RawHttp(any_service) as raw:
            raw.send("GET", path, auth, header)
            assert raw.status() in {200, 400}, path
    assert len(any_service.log_lines(event="internal error")) == before


def test_secrets_of_refused_requests_are_not_shown(any_service, http_alice):
    """A secret in a wrong place of a request gets neither into a response nor into the log."""
    secret = CANARIES.fresh("a credential over HTTP")
    with RawHttp(any_service) as raw:
        raw.send("GET", f"{OPERATIONS}/{secret}?access_token={secret}", f"Authorization: {secret}")
        assert raw.status() == 401
        CANARIES.saw("a refusal", raw.body())
    with RawHttp(any_service) as raw:
        raw.send("GET", f"{OPERATIONS} {secret}", f"Bad Header {secret}")
        assert raw.status() == 400
    assert http_alice("GET", f"{OPERATIONS}/{secret}").refusal == INVALID
