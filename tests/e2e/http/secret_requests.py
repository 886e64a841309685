"""Requests over HTTP that hold secrets in every place of a request."""

import base64
import json
from typing import Any

from milepost.domain.api_key import issue_key
from milepost.domain.operation import Role, new_operation_id
from tests.canaries import CANARIES
from tests.e2e.client import FUNCTION
from tests.e2e.http.exchange import Answer, Http, http_of
from tests.e2e.http.protocol import HTTP_RPCS, url_of
from tests.e2e.service import Service

OPERATIONS = "/v1/operations"
DURATION = "type.googleapis.com/google.protobuf.Duration"


def send_secrets_over_http(service: Service) -> None:
    """Send the service every kind of secret over HTTP, a new one in each place."""
    alice = http_of(service, service.client("alice"))
    _payloads(alice)
    _refused_payloads(alice)
    _malformed(alice)
    _wrong_credentials(service)
    _out_of_place(alice)
    alice.close()


def _made(answer: Answer) -> Answer:
    assert answer.status in {200, 202}, answer
    return answer


def _created(http: Http, **fields: Any) -> str:
    """Create an operation and return its path."""
    created = _made(http("POST", OPERATIONS, {"function": FUNCTION, **fields}))
    return created.headers["location"]


def _struct() -> dict[str, Any]:
    return {CANARIES.fresh("name in JSON"): {"deep": [CANARIES.fresh("value in JSON"), 1]}}


def _packed(what: str) -> dict[str, str]:
    value = base64.b64encode(CANARIES.fresh(what).encode()).decode()
    return {"@type": f"example.com/{CANARIES.fresh(f'type of a {what}')}", "value": value}


def _changes() -> list[tuple[str, dict[str, Any]]]:
    """Return the custom verbs that take payloads, each with one."""
    error = {name: CANARIES.fresh(f"{name} of an error") for name in ("code", "message", "source")}
    return [
        ("updateProgress", {"message": CANARIES.fresh("progress message")}),
        ("updateProgress", {"checkpoint": _packed("checkpoint")}),
        ("release", {"reason": CANARIES.fresh("reason of a release")}),
        ("complete", {"result": _packed("result")}),
        ("fail", {"errors": [error | {"details": _struct()}]}),
        ("cancel", {"reason": CANARIES.fresh("reason of a cancel")}),
    ]


def _payloads(http: Http) -> None:
    for verb, body in _changes():
        place = _created(http, metadata=_struct())
        _made(http("POST", f"{place}:start"))
        _made(http("POST", f"{place}:{verb}", body))


def _refused_payloads(http: Http) -> None:
    done = _created(http)
    _made(http("POST", f"{done}:cancel"))
    for place in (done, f"{OPERATIONS}/{new_operation_id()}", f"{OPERATIONS}/no-id"):
        for verb, body in _changes():
            assert http("POST", f"{place}:{verb}", body).status >= 400
    query = CANARIES.fresh("query of a callback URL")
    for url in (f"https://localhost/?t={query}", f"https://user:{query}@localhost/?t={query}"):
        assert http("POST", OPERATIONS, {"function": "f", "callbackUrl": url}).status >= 400


def _malformed(http: Http) -> None:
    """Send JSON that fits no request, with a secret in its values and in its names."""

    def secret() -> str:
        return CANARIES.fresh("a value of the wrong type")

    bodies: list[Any] = [
        {secret(): 1},
        {"function": {secret(): secret()}},
        {"ttl": secret()},
        {"priority": secret()},
        {"scheduleTime": secret()},
        {"metadata": secret()},
        {"metadata": [secret()]},
        {"callbackEvents": secret()},
        {"uniqueKeyPolicy": secret()},
        {"retryPolicy": {secret(): secret()}},
        {"retryPolicy": {"maxBackoff": secret()}},
        [secret()],
        json.dumps({"function": secret()}).encode()[:-1],
        secret().encode(),
    ]
    for body in bodies:
        assert http("POST", OPERATIONS, body).status == 400
    place = f"{OPERATIONS}/{new_operation_id()}"
    results = [{"@type": DURATION, "value": secret()}, {"@type": secret(), "value": secret()}]
    for result in [*results, secret(), {secret(): 1}]:
        assert http("POST", f"{place}:complete", {"result": result}).status == 400
    for name in ("page_token", "page_size", "statuses", "create_time_from", secret()):
        assert http("GET", f"{OPERATIONS}?{name}={secret()}").status == 400


def _wrong_credentials(service: Service) -> None:
    unknown = issue_key(subject="mallory", roles=list(Role))[0]
    CANARIES.guard("unknown API key", unknown.split("_")[2])
    basic = f"user:{CANARIES.fresh('password of another scheme')}".encode()
    for headers in (
        {"Authorization": f"Bearer {unknown}"},
        {"Authorization": f"Bearer {CANARIES.fresh('malformed token')}"},
        {"Authorization": f"Basic {base64.b64encode(basic).decode()}"},
        {"X_Api_Key": CANARIES.fresh("token in another header")},
        {"Cookie": f"session={CANARIES.fresh('cookie')}"},
    ):
        stranger = Http(service, None)
        for rpc in HTTP_RPCS:
            verb, place, body = url_of(rpc, rpc.request())
            token = CANARIES.fresh("token in the query")
            answer = stranger(verb, f"{place}?access_token={token}", body, **headers)
            assert answer.status in {401, 404, 405}, answer  # paths of some verbs need an id
        stranger.close()


def _out_of_place(http: Http) -> None:
    """Send secrets in paths and in headers of other values."""

    def secret() -> str:
        return CANARIES.fresh("a secret out of place")

    place = _created(http)
    for path in (f"/{secret()}", f"{OPERATIONS}/{secret()}", f"{place}:{secret()}"):
        assert http("GET", path).status >= 400
    for header in (
        "Content_Type", "Cookie", "Idempotency_Key", "If_Match", "If_None_Match", "Last_Event_ID",
        "Origin", "Prefer", "traceparent", "X_Forwarded_For",
    ):  # fmt: skip
        http("GET", place, **{header: secret()})
        http("POST", f"{place}:start", **{header: secret()})
    assert http("GET", f"{place}:watch", Last_Event_ID=secret()).status == 400
