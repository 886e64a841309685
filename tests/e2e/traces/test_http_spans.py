"""The spans of requests to the HTTP port."""

import contextlib
import secrets
from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.e2e.http.exchange import Answer, Http, http_of
from tests.e2e.traces.collector import attributes


@pytest.fixture
def http(traced, alice) -> Iterator[Http]:
    """The API over HTTP as alice sees it."""
    with contextlib.closing(http_of(traced, alice)) as http:
        yield http


def send(http: Http, verb: str, path: str, body: object = None) -> tuple[str, Answer]:
    """Send a request in a trace of its own; return the trace and the response."""
    trace_id = secrets.token_hex(16)
    return trace_id, http(verb, path, body, traceparent=f"00-{trace_id}-{secrets.token_hex(8)}-01")


def test_request_has_the_attributes_of_http(spans, traced, http):
    """A request is a span with its route, its path without the query, its status and its code."""
    created, answer = send(http, "POST", "/v1/operations", {"function": "video.transcode"})
    span = spans.one(created)
    assert (span.name, span.kind) == ("POST /v1/operations", Span.SPAN_KIND_SERVER)
    path = f"/v1/operations/{answer.json['id']}"
    read, answer = send(http, "GET", path)
    span = spans.one(read)
    found = attributes(span)
    assert span.name == "GET /v1/operations/{operation_id}"
    assert found["http.request.method"] == "GET"
    assert found["http.route"] == "/v1/operations/{operation_id}"
    assert (found["url.path"], found["url.scheme"]) == (path, "http")
    assert found["http.response.status_code"] == answer.status
    assert found["milepost.code"] == "OK"
    assert f"{found['server.address']}:{found['server.port']}" == traced.http_address
    assert found["client.address"] == found["network.peer.address"] == "127.0.0.1"
    assert found["milepost.operation.id"] == answer.json["id"]
    assert "error.type" not in found
    assert [link.trace_id.hex() for link in span.links] == [created]


@pytest.mark.parametrize(
    ("path", "code"), [("op_" + "0" * 24, "NOT_FOUND"), ("secret?page=secret", "INVALID_ARGUMENT")]
)
def test_refused_request_has_its_code(spans, http, path, code):
    """A refused request has its status and its code, and no text in place of an id."""
    trace_id, answer = send(http, "GET", f"/v1/operations/{path}")
    span = spans.one(trace_id)
    found = attributes(span)
    assert found["http.response.status_code"] == answer.status
    assert found["milepost.code"] == code
    assert span.status.code != Status.STATUS_CODE_ERROR
    assert "secret" not in str(span)
