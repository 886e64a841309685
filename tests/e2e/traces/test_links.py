"""Later changes of an operation belong to the trace that created it, or link to it."""

from datetime import timedelta

import pytest
from google.protobuf import duration_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from milepost.domain.operation import OperationId
from tests import factories
from tests.e2e.traces.collector import ARRIVES_WITHIN_S, CANARY, Collector, attributes, under
from tests.waiting import eventually


def test_later_calls_link_to_the_creating_trace(spans, traced, alice):
    """Every later transition has the operation's id and a link to the creating trace."""
    created, _ = under(alice)
    operation = alice.create()
    worker = traced.worker()
    for method, fields in (
        ("StartOperation", {}),
        ("UpdateProgress", {"progress": 0.5}),
        ("CompleteOperation", {}),
    ):
        trace_id, _ = under(worker)
        worker.transition(method, operation.id, **fields)
        span = spans.one(trace_id)
        assert attributes(span)["milepost.operation.id"] == operation.id
        (link,) = span.links
        assert link.trace_id.hex() == created
        assert link.span_id == spans.one(created).span_id


def test_call_of_the_same_trace_needs_no_link(spans, alice):
    """A later transition under the trace of the create belongs to it, and has no link."""
    trace_id, _ = under(alice)
    operation = alice.create()
    alice.transition("CancelOperation", operation.id)
    found = eventually(
        lambda: len(spans.calls(trace_id)) == 2 and spans.calls(trace_id),
        within=ARRIVES_WITHIN_S,
        what="two calls",
    )
    for span in found:
        assert attributes(span)["milepost.operation.id"] == operation.id
        assert not span.links


def test_untraced_create_can_be_linked_to(spans, traced, alice):
    """A create without a traceparent begins the trace that later calls link to."""
    operation = alice.create()
    created = traced.logged(operation_id=operation.id, transition="create")["trace_id"]
    trace_id, _ = under(alice)
    alice.transition("StartOperation", operation.id)
    (link,) = spans.one(trace_id).links
    assert link.trace_id.hex() == created


@pytest.mark.parametrize("sampled", [True, False])
def test_sweep_has_a_span_and_joins_the_creating_trace(spans, traced, alice, sampled):
    """A sweep that changes an operation is a span, and its transition joins the creating trace."""
    trace_id, _ = under(alice, sampled=sampled)
    operation = alice.create(ttl=duration_pb2.Duration(seconds=3600))
    under(alice)
    alice.transition("StartOperation", operation.id)
    before = len(sweeps_of(spans))
    factories.age(traced.engine, OperationId(operation.id), timedelta(hours=2))
    (sweep,) = eventually(
        lambda: sweeps_of(spans)[before:], within=ARRIVES_WITHIN_S, what="the span of the sweep"
    )
    counts = attributes(sweep)
    assert counts["milepost.sweep.expire"] == 1
    assert counts["milepost.sweep.release"] == counts["milepost.sweep.abandon"] == 0
    assert (sweep.kind, sweep.parent_span_id) == (Span.SPAN_KIND_INTERNAL, b"")
    assert sweep.end_time_unix_nano > sweep.start_time_unix_nano
    joined = spans.named(trace_id, "operation expire")
    named = [attributes(span)["milepost.operation.id"] for span in joined]
    assert named == ([operation.id] if sampled else [])
    for span in joined:
        assert attributes(span)["error.type"] == "EXPIRED"
        assert [link.span_id for link in span.links] == [sweep.span_id]


def sweeps_of(spans: Collector) -> list[Span]:
    """Return the spans of sweeps for lost leases."""
    return [span for span in spans.spans if span.name == "sweep leases"]


@pytest.mark.parametrize("sampled", [True, False])
def test_webhook_belongs_to_the_creating_trace(spans, alice, receiver, sampled):
    """A webhook continues the creating trace, and its attempt is a span of it."""
    trace_id, _ = under(alice, sampled=sampled)
    path = f"/{trace_id}"
    operation = alice.create(callback_url=receiver.url(path + f"?{CANARY}"))
    under(alice)
    alice.transition("CancelOperation", operation.id)
    (hook,) = receiver.wait_for(path)
    version, sent_trace, sent_span, flags = hook.headers["traceparent"].split("-")
    assert (version, sent_trace, flags) == ("00", trace_id, f"0{int(sampled)}")
    if not sampled:
        assert spans.of(trace_id) == []
        return
    attempt = spans.one(trace_id, "POST")
    assert attempt.span_id.hex() == sent_span
    assert attempt.kind == Span.SPAN_KIND_CLIENT
    found = attributes(attempt)
    assert found["milepost.operation.id"] == operation.id
    assert found["milepost.operation.status"] == "CANCELLED"
    assert found["milepost.webhook.status"] == "DELIVERED"
    assert (found["server.address"], found["server.port"]) == ("127.0.0.1", receiver.port)
    assert found["url.full"] == f"http://127.0.0.1:{receiver.port}/REDACTED"
    assert found["http.response.status_code"] == 200
    assert "http.request.resend_count" not in found
    assert CANARY not in str(attempt)


def test_failed_webhook_attempts_are_errors(spans, alice, receiver):
    """A webhook attempt that fails has the class of its error, and the next one its number."""
    trace_id, _ = under(alice)
    path = f"/{trace_id}"
    receiver.answer(path, 500, 200)
    operation = alice.create(callback_url=receiver.url(path))
    alice.transition("CancelOperation", operation.id)
    eventually(
        lambda: len(spans.named(trace_id, "POST")) == 2,
        within=ARRIVES_WITHIN_S,
        what="two attempts",
    )
    first, second = map(attributes, spans.named(trace_id, "POST"))
    assert (first["error.type"], first["milepost.webhook.status"]) == ("500", "PENDING")
    assert "http.request.resend_count" not in first
    assert second["http.request.resend_count"] == 1
    assert "error.type" not in second
