"""The spans of calls, as a collector receives them."""

import asyncio

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf import struct_pb2
from grpc import StatusCode
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from milepost.domain.operation import OperationId
from milepost.storage.tables import operations
from tests.canaries import CANARIES
from tests.contract.stored import Stored
from tests.e2e.client import FUNCTION, Client
from tests.e2e.http.secret_requests import send_secrets_over_http
from tests.e2e.refusals import refused
from tests.e2e.rpcs import RPCS
from tests.e2e.secret_requests import send_secrets
from tests.e2e.traces.collector import CANARY, attributes, under
from tests.waiting import until

CREATE = "milepost.v1.OperationService/CreateOperation"


def test_span_is_a_child_of_the_caller(spans, traced, alice):
    """The server span is a child of the traceparent that was sent."""
    trace_id, parent = under(alice)
    operation = alice.create()
    span = spans.one(trace_id)
    assert span.parent_span_id.hex() == parent
    assert (span.name, span.kind) == (CREATE, Span.SPAN_KIND_SERVER)
    assert span.end_time_unix_nano > span.start_time_unix_nano
    found = attributes(span)
    assert found["rpc.method"] == CREATE
    assert found["rpc.system.name"] == "grpc"
    assert found["rpc.response.status_code"] == "OK"
    assert found["milepost.operation.id"] == operation.id
    assert f"{found['server.address']}:{found['server.port']}" == traced.address
    assert found["client.address"] == "127.0.0.1"
    assert any("milepost" in resource for resource in spans.resources)


def test_trace_begins_without_a_caller(spans, traced, alice):
    """Without a traceparent a new trace begins, and the log has its id too."""
    operation = alice.create()
    line = traced.logged(operation_id=operation.id, transition="create")
    span = spans.one(line["trace_id"])
    assert span.parent_span_id == b""
    assert attributes(span)["milepost.operation.id"] == operation.id


def test_trace_that_is_not_sampled_is_kept_quiet(spans, traced, alice):
    """An unsampled trace has no span; the next sampled one has."""
    quiet, _ = under(alice, sampled=False)
    operation = alice.create()
    assert traced.logged(operation_id=operation.id)["trace_id"]
    loud, _ = under(alice)
    alice.get(operation.id)
    spans.one(loud)
    assert spans.of(quiet) == []


@pytest.mark.parametrize(
    "broken", ["", "x", "00-0-0-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"]
)
def test_broken_traceparent_is_ignored(spans, traced, alice, broken):
    """A malformed traceparent begins a new trace (W3C Trace Context)."""
    alice.metadata = (*alice.metadata, ("traceparent", broken))
    operation = alice.create()
    line = traced.logged(operation_id=operation.id, transition="create")
    assert spans.one(line["trace_id"]).parent_span_id == b""


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("GetOperation", StatusCode.INVALID_ARGUMENT),
        ("CreateOperation", StatusCode.INVALID_ARGUMENT),
        ("ClaimOperations", StatusCode.PERMISSION_DENIED),
    ],
)
def test_span_has_the_true_code(spans, alice, method, code):
    """A refused call has its code on the span, which is not an error."""
    trace_id, _ = under(alice)
    with refused(code):
        alice.call(method)
    span = spans.one(trace_id)
    assert attributes(span)["rpc.response.status_code"] == code.name
    assert span.status.code != Status.STATUS_CODE_ERROR


def test_our_own_faults_are_errors(spans, alice):
    """A call that the service does not answer in time is an error on its span."""
    operation = alice.create()
    (watch,) = (rpc for rpc in RPCS if rpc.method == "WatchOperation")
    trace_id, _ = under(alice)
    call = watch.on(alice.channel)(watch.about(operation.id), metadata=alice.metadata, timeout=0.3)
    with pytest.raises(grpc.RpcError) as late:
        list(call)
    assert late.value.code() is StatusCode.DEADLINE_EXCEEDED
    span = spans.one(trace_id)
    assert attributes(span)["rpc.response.status_code"] == "DEADLINE_EXCEEDED"
    assert span.status.code == Status.STATUS_CODE_ERROR


def test_stranger_has_a_span(spans, traced):
    """A call without a credential has a span with its code."""
    stranger = Client(traced.channel, "unknown", frozenset(), "no-key")
    trace_id, parent = under(stranger)
    with refused(StatusCode.UNAUTHENTICATED):
        stranger.create()
    span = spans.one(trace_id)
    assert span.parent_span_id.hex() == parent
    assert attributes(span)["rpc.response.status_code"] == "UNAUTHENTICATED"


def test_defect_is_an_error_span(spans, traced, alice):
    """A defect makes its span an error, found by the trace id of the refusal."""
    operation = alice.create()
    stored = Stored(traced.engine)
    mine = operations.c.id == operation.id
    stored.execute(sa.update(operations).where(mine).values(metadata="broken"))
    trace_id, _ = under(alice)
    with refused(StatusCode.INTERNAL, "INTERNAL") as refusal:
        alice.get(operation.id)
    assert refusal.facts["trace_id"] == trace_id
    span = spans.one(trace_id)
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span)["rpc.response.status_code"] == "INTERNAL"


@pytest.mark.parametrize("code", ["CANCELLED", "DEADLINE_EXCEEDED"])
async def test_call_that_is_cut_off_has_its_code(spans, traced, alice, code):
    """A cancelled call and a late one have their own codes on the span."""
    operation = alice.create_in("PROCESSING")
    stored = Stored(traced.engine)
    trace_id, _ = under(alice)
    (rpc,) = (rpc for rpc in RPCS if rpc.method == "UpdateProgress")
    async with traced.aio_channel() as channel:
        with stored.held(OperationId(operation.id)):
            timeout = 0.2 if code == "DEADLINE_EXCEEDED" else 10
            request = rpc.about(operation.id, progress=0.5)
            call = rpc.on(channel)(request, metadata=alice.metadata, timeout=timeout)
            if code == "CANCELLED":
                await until(lambda: traced.metric("milepost_rpcs_running") == 1)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            assert (await call.code()).name == code
            await until(lambda: traced.metric("milepost_rpcs_running") == 0)
    assert attributes(spans.one(trace_id))["rpc.response.status_code"] == code


def test_secrets_and_payloads_never_reach_a_span(spans, alice):
    """No key, metadata value, message or header is in any span."""
    canary = struct_pb2.Struct()
    canary.update({CANARY: CANARY})
    under(alice)
    operation = alice.create(metadata=canary, version=CANARY, request_id=CANARY)
    alice.transition("UpdateProgress", operation.id, message=CANARY)
    with refused(StatusCode.INVALID_ARGUMENT):
        alice.create(function=CANARY + "\n", metadata=canary)
    trace_id, _ = under(alice)
    alice.create(function=FUNCTION)
    spans.one(trace_id)
    everything = "".join(str(span) for span in spans.spans)
    assert CANARY not in everything
    assert alice.key.split("_")[2] not in everything


def test_no_secret_reaches_a_span(spans, traced, alice):
    """No secret of any kind is in any span, in any form."""
    send_secrets(traced)
    send_secrets_over_http(traced)
    trace_id, _ = under(alice)
    alice.create()
    spans.one(trace_id)
    assert CANARIES.leaks() == []


def test_reads_and_refused_calls_name_the_operation(spans, traced, alice):
    """Reads, refused transitions and strangers' calls have the operation's id on their spans."""
    created, _ = under(alice)
    operation = alice.create_in("COMPLETED")
    read, _ = under(alice)
    alice.get(operation.id)
    span = spans.one(read)
    assert attributes(span)["milepost.operation.id"] == operation.id
    assert [link.trace_id.hex() for link in span.links] == [created]
    refusals = [
        (alice, StatusCode.FAILED_PRECONDITION),
        (traced.client("bob"), StatusCode.NOT_FOUND),
    ]
    for client, code in refusals:
        trace_id, _ = under(client)
        with refused(code):
            client.transition("CompleteOperation", operation.id)
        assert attributes(spans.one(trace_id))["milepost.operation.id"] == operation.id


def test_malformed_id_is_on_no_span(spans, alice):
    """A malformed id does not reach the span."""
    trace_id, _ = under(alice)
    with refused(StatusCode.INVALID_ARGUMENT):
        alice.get("op_" + 24 * "X")
    assert "milepost.operation.id" not in attributes(spans.one(trace_id))
