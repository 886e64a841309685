"""One search for the id of an operation shows its whole life as one trace, while it runs."""

from datetime import timedelta

import pytest
from google.protobuf import duration_pb2

from milepost.domain.operation import OperationId
from tests import factories
from tests.e2e.client import Client
from tests.e2e.rpcs import BROKEN
from tests.e2e.service import Service
from tests.e2e.test_claim import claim
from tests.e2e.test_streaming import streaming
from tests.e2e.traces.collector import under
from tests.jaeger.server import ARRIVES_S, Found, Jaeger
from tests.waiting import eventually

MANY = 10
pytestmark = pytest.mark.timeout(240)  # the first test starts a Jaeger and two replicas


def on(client: Client, service: Service) -> Client:
    """Return the same client at another replica."""
    return Client(service.channel, client.subject, client.roles, client.key)


def names(spans: list[Found]) -> list[str]:
    """Return the names of the spans, without those of phases, which begin before."""
    phases = {"operation pending", "operation processing"}
    return [span.name for span in spans if span.name not in phases]


def wait_for_life(jaeger: Jaeger, operation_id: str, *transitions: str) -> list[Found]:
    """Wait until a life consists of these transitions: each replica exports its own when it may."""
    wanted = [f"operation {transition}" for transition in transitions]
    eventually(
        lambda: names(jaeger.life(operation_id)) == wanted, within=ARRIVES_S, what=str(wanted)
    )
    return jaeger.life(operation_id)


def test_whole_life_is_one_trace(replicas, jaeger, receiver, alice, function):
    """Claim, progress, release, end and webhook are in the trace of the create, on any replica."""
    created, _ = under(alice)
    operation = alice.create(function=function, callback_url=receiver.url(f"/{created}?key=1"))
    workers = [on(replicas[0].worker(), replica) for replica in replicas]
    claim(workers[1], function, worker="w-1")
    workers[0].transition("UpdateProgress", operation.id, progress=0.5)
    workers[0].transition("ReleaseOperation", operation.id)
    claim(workers[0], function, worker="w-2")
    workers[1].transition("CompleteOperation", operation.id)
    jaeger.wait_for(operation.id, "POST")
    life = wait_for_life(
        jaeger, operation.id, "create", "claim", "progress", "release", "claim", "complete"
    )
    assert {span.trace_id for span in jaeger.spans_of(operation.id)} == {created}
    assert {span.id for span in jaeger.spans_of(operation.id)} <= {
        span.id for span in jaeger.trace(created)
    }
    by_name = {span.name: span for span in jaeger.spans_of(operation.id)}
    tags = by_name["operation complete"].tags
    assert tags["milepost.operation.function"] == function
    assert tags["milepost.operation.status"] == "COMPLETED"
    assert (tags["milepost.operation.attempt"], tags["milepost.operation.worker"]) == (2, "w-2")
    assert by_name["POST"].tags["http.response.status_code"] == 200
    assert by_name["operation processing"].duration_us > 0
    instances = {span.resource["service.instance.id"] for span in life}
    assert len(instances) == 2
    # The calls of the workers were not sampled.
    assert not any(span.links for span in life)


def test_life_without_a_sampled_create_is_absent(replicas, jaeger, alice, function):
    """A life whose create was not sampled has no span, although its later calls are sampled."""
    under(alice, sampled=False)
    operation = alice.create(function=function)
    worker = replicas[0].worker()
    called, _ = under(worker)
    claim(worker, function)
    worker.transition("CompleteOperation", operation.id)
    jaeger.wait_for(operation.id, "milepost.v1.WorkerService/CompleteOperation")
    assert jaeger.life(operation.id) == []
    assert {span.trace_id for span in jaeger.spans_of(operation.id)} == {called}


async def test_every_operation_of_a_claim_and_a_stream_has_its_own_spans(
    replicas, jaeger, alice, function
):
    """Ten operations of one claim and one stream have spans of their own, while both run."""
    created = {}
    for _ in range(MANY):
        trace_id, _ = under(alice)
        created[alice.create(function=function).id] = trace_id
    worker = replicas[1].worker()
    claimed, _ = under(worker)
    claim(worker, function, max_operations=MANY)
    streamed, _ = under(worker)
    async with streaming(replicas[1], worker) as stream:
        for operation_id in created:
            await stream.ask(operation_id, progress=0.5)
        for operation_id, trace_id in created.items():
            life = wait_for_life(jaeger, operation_id, "create", "claim", "progress")
            assert {span.trace_id for span in life} == {trace_id}
            claim_span, progress_span = life[-2:]
            assert {trace for trace, _ in claim_span.links} == {claimed}
            assert {trace for trace, _ in progress_span.links} == {streamed}
        call = "milepost.v1.WorkerService/StreamProgress"
        assert call not in names(jaeger.trace(streamed))  # it is not over
        await stream.rest()
    (span,) = jaeger.wait_for_trace(streamed, call)
    assert set(created.values()) <= {trace for trace, _ in span.links}


def test_watch_and_wait_name_their_operation(replicas, jaeger, alice, function):
    """A watch and a wait have the id of their operation, and a link to its create."""
    created, _ = under(alice)
    operation = alice.create(function=function)
    called, _ = under(alice)
    watch = alice.watch(replicas[0].channel, operation.id)
    next(watch)
    nothing = duration_pb2.Duration()
    alice.call("WaitOperation", operation_id=operation.id, timeout=nothing)
    alice.transition("CancelOperation", operation.id)
    list(watch)
    service = "milepost.v1.OperationService"
    spans = jaeger.wait_for(operation.id, f"{service}/WatchOperation", f"{service}/WaitOperation")
    for name in ("WatchOperation", "WaitOperation"):
        (span,) = (each for each in spans if each.name == f"{service}/{name}")
        assert span.trace_id == called
        assert {trace for trace, _ in span.links} == {created}


def test_trace_is_whole_after_a_kill(replicas, jaeger, alice, function):
    """Changes by a killed replica stay in the trace, and the sweeper and another continue it."""
    doomed, survivor = replicas[1], replicas[0]
    caller = on(alice, survivor)
    created, _ = under(caller)
    operation = caller.create(function=function, max_attempts=2)
    worker = doomed.worker()
    claim(worker, function, worker="doomed")
    worker.transition("UpdateProgress", operation.id, progress=0.3)
    jaeger.wait_for(operation.id, "operation progress")
    doomed.kill()
    wait_for_life(jaeger, operation.id, "create", "claim", "progress")
    factories.age(survivor.engine, OperationId(operation.id), timedelta(seconds=40))
    jaeger.wait_for(operation.id, "operation release")
    again = on(worker, survivor)
    claim(again, function)
    again.transition("FailOperation", operation.id, errors=[BROKEN])
    jaeger.wait_for(operation.id, "operation fail")
    life = [span for span in jaeger.life(operation.id) if span.name in names([span])]
    assert {span.trace_id for span in life} == {created}
    lost = next(span for span in life if span.name == "operation release")
    assert (lost.is_error, lost.tags["error.type"]) == (True, "LEASE_LOST")
    assert lost.tags["milepost.sweep"] == "release"
    failed = next(span for span in life if span.name == "operation fail")
    assert (failed.is_error, failed.tags["error.type"]) == (True, "BROKEN")
    of_function = {"milepost__operation__function": function}
    found = jaeger.find(milepost__operation__status="FAILED", **of_function)
    assert names(found) == ["operation fail"]
    assert names(jaeger.find(error__type="LEASE_LOST", **of_function)) == ["operation release"]
