"""Traces as a collector receives them."""

import asyncio
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf import duration_pb2, struct_pb2
from grpc import StatusCode
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from milepost.domain.operation import OperationId
from milepost.storage.tables import operations
from tests import factories
from tests.canaries import CANARIES
from tests.contract.stored import Stored
from tests.e2e.client import FUNCTION, Client
from tests.e2e.confiding import confide
from tests.e2e.refusals import refused
from tests.e2e.rpcs import RPCS
from tests.e2e.service import Service
from tests.inbox import Inbox
from tests.waiting import eventually, until

ARRIVES_WITHIN_S = 10.0
CANARY = "canary51c2"
CREATE = "milepost.v1.OperationService/CreateOperation"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[str] = []

    def Export(self, request, _context):  # noqa: N802 - named by the proto
        """Take some spans."""
        CANARIES.saw("a span", request.SerializeToString())
        for resource in request.resource_spans:
            self.resources.append(str(resource.resource))
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, trace_id: str) -> list[Span]:
        """The spans of a trace."""
        return [span for span in self.spans if span.trace_id.hex() == trace_id]

    def one(self, trace_id: str) -> Span:
        """The one span of a trace, once it has arrived."""
        found: list[Span] = eventually(
            lambda: self.of(trace_id), within=ARRIVES_WITHIN_S, what=f"a span of {trace_id}"
        )
        (span,) = found
        return span


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, str]]:
    """A collector, and where it listens."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"http://127.0.0.1:{port}"
    server.stop(0)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Inbox]:
    """A receiver of webhooks."""
    with Inbox() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def traced(collector, receiver, tmp_path_factory) -> Iterator[Service]:
    """A service that sends every trace to the collector, soon."""
    folder = tmp_path_factory.mktemp("traced")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        url = f"sqlite:///{folder / 'milepost.db'}"
        service = Service(
            url,
            folder,
            otlp_endpoint=collector[1],
            trace_sample_ratio="1",
            webhook_allow_http="true",
            webhook_allowed_networks="127.0.0.1/32",
            webhook_allowed_ports=str(receiver.port),
        )
        with service:
            yield service


@pytest.fixture
def spans(collector: tuple[Collector, str]) -> Collector:
    """What the collector has."""
    return collector[0]


@pytest.fixture
def alice(traced: Service) -> Client:
    """A caller of the traced service."""
    return traced.client("alice")


def under(client: Client, *, sampled: bool = True) -> tuple[str, str]:
    """Make the client call under a new trace; its trace id and its span id."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    header = ("traceparent", f"00-{trace_id}-{span_id}-0{int(sampled)}")
    client.metadata = (("authorization", f"Bearer {client.key}"), header)
    return trace_id, span_id


def attributes(span: Span) -> dict[str, str]:
    """The attributes of a span."""
    return {item.key: item.value.string_value for item in span.attributes}


def test_span_is_a_child_of_the_caller(spans, alice):
    """The server span is a child of the traceparent that was sent (B225)."""
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
    assert any("milepost" in resource for resource in spans.resources)


def test_trace_begins_without_a_caller(spans, traced, alice):
    """Without a traceparent a new trace begins, which the log names too (B226)."""
    operation = alice.create()
    line = traced.logged(operation_id=operation.id, move="create")
    span = spans.one(line["trace_id"])
    assert span.parent_span_id == b""
    assert attributes(span)["milepost.operation.id"] == operation.id


def test_trace_that_is_not_sampled_is_kept_quiet(spans, traced, alice):
    """A caller that does not sample its trace gets no span; its successor's does arrive."""
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
    """A traceparent that is none begins a new trace (W3C Trace Context)."""
    alice.metadata = (*alice.metadata, ("traceparent", broken))
    operation = alice.create()
    line = traced.logged(operation_id=operation.id, move="create")
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
    """A refused call has its code on the span, and is no error of ours (B225)."""
    trace_id, _ = under(alice)
    with refused(code):
        alice.call(method)
    span = spans.one(trace_id)
    assert attributes(span)["rpc.response.status_code"] == code.name
    assert span.status.code != Status.STATUS_CODE_ERROR


def test_our_own_faults_are_errors(spans, alice):
    """A call that is not answered in time is an error on its span (B225)."""
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
    """A call without a credential is traced with its code too (B225)."""
    stranger = Client(traced.channel, "nobody", frozenset(), "no-key")
    trace_id, parent = under(stranger)
    with refused(StatusCode.UNAUTHENTICATED):
        stranger.create()
    span = spans.one(trace_id)
    assert span.parent_span_id.hex() == parent
    assert attributes(span)["rpc.response.status_code"] == "UNAUTHENTICATED"


def test_defect_is_an_error_span(spans, traced, alice):
    """A defect makes its span an error, found by the trace id that the caller was told."""
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
    """A cancelled call and one that is late have their true code on the span (B225)."""
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


def test_later_calls_link_to_the_creating_trace(spans, traced, alice):
    """Every later move has the id of the operation, and a link to the creating trace (B228)."""
    created, _ = under(alice)
    operation = alice.create()
    worker = traced.worker()
    for method, fields in (
        ("StartOperation", {}),
        ("UpdateProgress", {"progress": 0.5}),
        ("CompleteOperation", {}),
    ):
        trace_id, _ = under(worker)
        worker.move(method, operation.id, **fields)
        span = spans.one(trace_id)
        assert attributes(span)["milepost.operation.id"] == operation.id
        (link,) = span.links
        assert link.trace_id.hex() == created
        assert link.span_id == spans.one(created).span_id


def test_call_of_the_same_trace_needs_no_link(spans, alice):
    """A later move under the trace of the create belongs to it, and has no link (B228)."""
    trace_id, _ = under(alice)
    operation = alice.create()
    alice.move("CancelOperation", operation.id)
    found = eventually(
        lambda: len(spans.of(trace_id)) == 2 and spans.of(trace_id),
        within=ARRIVES_WITHIN_S,
        what="two spans",
    )
    for span in found:
        assert attributes(span)["milepost.operation.id"] == operation.id
        assert not span.links


def test_create_that_nobody_traced_can_be_linked_to(spans, traced, alice):
    """A create without a traceparent is linked to by the trace that began with it (B228)."""
    operation = alice.create()
    created = traced.logged(operation_id=operation.id, move="create")["trace_id"]
    trace_id, _ = under(alice)
    alice.move("StartOperation", operation.id)
    (link,) = spans.one(trace_id).links
    assert link.trace_id.hex() == created


def test_secrets_and_payloads_never_reach_a_span(spans, alice):
    """No key, metadata value, message or header is in any span (B221)."""
    canary = struct_pb2.Struct()
    canary.update({CANARY: CANARY})
    under(alice)
    operation = alice.create(metadata=canary, version=CANARY, request_id=CANARY)
    alice.move("UpdateProgress", operation.id, message=CANARY)
    with refused(StatusCode.INVALID_ARGUMENT):
        alice.create(function=CANARY + "\n", metadata=canary)
    trace_id, _ = under(alice)
    alice.create(function=FUNCTION)
    spans.one(trace_id)
    everything = "".join(str(span) for span in spans.spans)
    assert CANARY not in everything
    assert alice.key.split("_")[2] not in everything


def test_no_confidence_reaches_a_span(spans, traced, alice):
    """No secret of any kind is in any span, in any form (B221)."""
    confide(traced)
    trace_id, _ = under(alice)
    alice.create()
    spans.one(trace_id)
    assert CANARIES.leaks() == []


def test_reads_and_refused_calls_name_the_operation(spans, traced, alice):
    """A read, a refused move and a stranger's call have the operation's id on their spans."""
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
            client.move("CompleteOperation", operation.id)
        assert attributes(spans.one(trace_id))["milepost.operation.id"] == operation.id


def test_text_that_is_no_id_is_on_no_span(spans, alice):
    """What is sent in the place of an id, and is none, stays out of the span."""
    trace_id, _ = under(alice)
    with refused(StatusCode.INVALID_ARGUMENT):
        alice.get("op_" + 24 * "X")
    assert "milepost.operation.id" not in attributes(spans.one(trace_id))


@pytest.mark.parametrize("sampled", [True, False])
def test_sweep_has_a_span_and_joins_the_creating_trace(spans, traced, alice, sampled):
    """A sweep with something to do is a span, and its move one of the creating trace (B228)."""
    trace_id, _ = under(alice, sampled=sampled)
    operation = alice.create(ttl=duration_pb2.Duration(seconds=3600))
    under(alice)
    alice.move("StartOperation", operation.id)
    before = len(sweeps_of(spans))
    factories.age(traced.engine, OperationId(operation.id), timedelta(hours=2))
    (sweep,) = eventually(
        lambda: sweeps_of(spans)[before:], within=ARRIVES_WITHIN_S, what="the span of the sweep"
    )
    counts = {item.key: item.value.int_value for item in sweep.attributes}
    assert counts["milepost.sweep.expire"] == 1
    assert counts["milepost.sweep.release"] == counts["milepost.sweep.abandon"] == 0
    assert (sweep.kind, sweep.parent_span_id) == (Span.SPAN_KIND_INTERNAL, b"")
    assert sweep.end_time_unix_nano > sweep.start_time_unix_nano
    joined = [span for span in spans.of(trace_id) if span.name == "sweeper expire"]
    named = [attributes(span)["milepost.operation.id"] for span in joined]
    assert named == ([operation.id] if sampled else [])


def sweeps_of(spans: Collector) -> list[Span]:
    """The spans of passes that looked for lost leases."""
    return [span for span in spans.spans if span.name == "sweep leases"]


@pytest.mark.parametrize("sampled", [True, False])
def test_webhook_belongs_to_the_creating_trace(spans, alice, receiver, sampled):
    """A webhook carries the creating trace on, and its attempt is a span of it (B228)."""
    trace_id, _ = under(alice, sampled=sampled)
    path = f"/{trace_id}"
    operation = alice.create(callback_url=receiver.url(path + f"?{CANARY}"))
    under(alice)
    alice.move("CancelOperation", operation.id)
    (hook,) = receiver.wait_for(path)
    version, sent_trace, sent_span, flags = hook.headers["traceparent"].split("-")
    assert (version, sent_trace, flags) == ("00", trace_id, f"0{int(sampled)}")
    if not sampled:
        assert spans.of(trace_id) == []
        return
    (attempt,) = eventually(
        lambda: [span for span in spans.of(trace_id) if span.name == "webhook"],
        within=ARRIVES_WITHIN_S,
        what="the span of the attempt",
    )
    assert attempt.span_id.hex() == sent_span
    assert attempt.kind == Span.SPAN_KIND_CLIENT
    assert attributes(attempt)["milepost.operation.id"] == operation.id
    assert attributes(attempt)["milepost.webhook.status"] == "DELIVERED"
    assert CANARY not in str(attempt)
