"""The committed description of the API over HTTP says what the service does."""

import json
import re
from importlib import resources
from typing import Any, Final

import pytest
from google.api import annotations_pb2

from milepost.domain.limits import Limits
from milepost.domain.operation import new_operation_id
from tests.e2e.http.protocol import HTTP_RPCS, path_of

DESCRIPTION: Final[dict[str, Any]] = json.loads(
    resources.files("milepost.web").joinpath("description/openapi.json").read_text()
)
CALLS: Final = {
    call["operationId"].rpartition("_")[2]: (verb.upper(), path, call)
    for path, verbs in DESCRIPTION["paths"].items()
    for verb, call in verbs.items()
}


def test_every_path_is_described():
    """The description has the paths and verbs of the annotations, and no others."""
    assert annotations_pb2.http is not None
    paths = {rpc.method: path_of(rpc) for rpc in HTTP_RPCS}
    assert {method: (verb, path) for method, (verb, path, _) in CALLS.items()} == {
        method: (path.verb, path.pattern) for method, path in paths.items() if path is not None
    }


@pytest.mark.parametrize("method", CALLS)
def test_every_refusal_is_a_problem(method):
    """Each call lists its refusals, which have problem details, and needs a credential."""
    responses = CALLS[method][2]["responses"]
    refusals = {status for status in responses if int(status) >= 400}
    assert {"400", "401", "403", "404", "409", "429", "500", "503"} <= refusals
    problem = {"$ref": "#/components/responses/Problem"}
    assert all(responses[status] == problem for status in refusals)
    assert DESCRIPTION["security"] == [{"bearer": []}]


@pytest.mark.parametrize(
    "method", [name for name, (_, _, c) in CALLS.items() if "requestBody" in c]
)
def test_requests_are_closed(method):
    """A field that the description lacks is refused, as the service refuses it."""
    content = CALLS[method][2]["requestBody"]["content"]["application/json"]
    assert content["schema"]["additionalProperties"] is False


def test_fields_have_their_limits():
    """Lengths, ranges and patterns are those of the limits."""
    verb, _, call = CALLS["CreateOperation"]
    fields = call["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert verb == "POST"
    assert fields["function"]["maxLength"] == Limits().name_length
    assert fields["priority"]["maximum"] == Limits().priority_max
    assert re.search(fields["ttl"]["pattern"], "1.5s")
    assert not re.search(fields["function"]["pattern"], " \t")
    assert "requestId" not in fields  # it is the header
    names = {each["name"] for each in call["parameters"]}
    assert names == {"Idempotency-Key"}
    (operation_id,) = CALLS["GetOperation"][2]["parameters"][:1]
    assert re.search(operation_id["schema"]["pattern"], new_operation_id())


def test_what_http_adds_is_described():
    """The description has the status of a create, the end of a watch, and their types."""
    created = CALLS["CreateOperation"][2]["responses"]
    assert "200" not in created
    assert {"Location", "Retry-After", "ETag"} <= created["202"]["headers"].keys()
    watched = CALLS["WatchOperation"][2]["responses"]
    assert list(watched["200"]["content"]) == ["text/event-stream"]
    assert "204" in watched
    assert "304" in CALLS["GetOperation"][2]["responses"]
