"""The spans of the life of an operation: whole or absent, each with the facts of its change."""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from milepost import telemetry
from milepost.domain.operation import (
    Operation,
    OperationError,
    OperationId,
    Principal,
    Role,
    Status,
    new_operation_id,
)
from milepost.domain.sweep import PURGE, RELEASE
from milepost.domain.transitions import Transition, TransitionResult
from milepost.telemetry import Sampler, Tracing
from milepost.telemetry.call_trace import MAX_LINKS
from milepost.telemetry.life_spans import PROGRESS_INTERVAL_S, Thinning
from tests import factories

BEGUN = 1_700_000_000_000_000_000
CREATED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ID = "op_0123456789abcdef01234567"
METHOD = "milepost.v1.WorkerService/ClaimOperations"
WORKER = Principal(subject="carol", roles=frozenset({Role.WORKER}), credential_id="c")
FIELDS = [field.name for field in dataclasses.fields(Operation)]


def operation(status=Status.PROCESSING, **overrides) -> Operation:
    """Return an operation whose create was sampled."""
    row = factories.row(status)
    fields: dict[str, Any] = {name: row.get(name) for name in FIELDS}
    given = {
        "id": ID,
        "trace_context": CREATED,
        "worker": "w1",
        "attempt": 1,
        "revision": 2,
        "progress": None,
    }
    return Operation(**fields | {"status": status, "errors": ()} | given | overrides)


class Recorded:
    """Tracing whose spans are kept."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.always = Tracing(provider, Sampler(ratio=1.0))
        self.never = Tracing(provider, Sampler(ratio=0.0))

    def spans(self, prefix: str = "") -> list[ReadableSpan]:
        """Return the spans that have ended, by the beginning of their names."""
        found = self._exporter.get_finished_spans()
        return [span for span in found if span.name.startswith(prefix)]


@pytest.fixture
def recorded() -> Recorded:
    """Tracing whose spans are kept."""
    return Recorded()


def record(transition, changed, **facts):
    """Record a committed change."""
    outcome = TransitionResult(changed)
    telemetry.record_transition(transition, outcome, WORKER, begun=BEGUN, **facts)


def trace_id(span: ReadableSpan) -> str:
    """Return the trace of a span."""
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def test_change_continues_the_creating_trace(recorded):
    """A change is a child of the create, although the call that carried it is not sampled."""
    recorded.never.start(METHOD, None)
    changed = operation(id=new_operation_id(), progress=0.5)
    record(Transition.PROGRESS, changed)
    (span,) = recorded.spans()
    assert span.name == "operation progress"
    assert trace_id(span) == CREATED.split("-")[1]
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == CREATED.split("-")[2]
    assert (span.start_time, span.links) == (BEGUN, ())
    assert span.attributes == {
        "milepost.operation.id": changed.id,
        "milepost.operation.function": changed.function,
        "milepost.operation.status": "PROCESSING",
        "milepost.operation.revision": 2,
        "milepost.operation.attempt": 1,
        "milepost.operation.worker": "w1",
        "milepost.operation.progress": 0.5,
    }


@pytest.mark.parametrize("stored", [None, CREATED[:-1] + "0", CREATED[:-1] + "2", "garbage1"])
def test_life_without_a_sampled_create_is_absent(recorded, stored):
    """A change of an operation whose create was not sampled has no span, even in a sampled call."""
    call = recorded.always.start(METHOD, None)
    record(Transition.START, operation(trace_context=stored))
    assert recorded.spans() == []
    assert call.span is not None


def test_call_and_change_are_linked(recorded):
    """A change links to the call that carried it, and the call to the create, once."""
    call = recorded.always.start(METHOD, None)
    record(Transition.START, operation())
    record(Transition.COMPLETE, operation(Status.COMPLETED))
    call.end({})
    start, complete = recorded.spans("operation start") + recorded.spans("operation complete")
    (of_call,) = recorded.spans(METHOD)
    for change in (start, complete):
        assert [link.context for link in change.links] == [of_call.context]
    (link,) = of_call.links
    assert f"{link.context.span_id:016x}" == CREATED.split("-")[2]
    assert of_call.attributes is not None
    assert of_call.attributes["milepost.operation.id"] == ID


def test_call_in_the_creating_trace_is_the_parent(recorded):
    """A change in the trace of its create is a child of the call, without links."""
    call = recorded.always.start(METHOD, CREATED)
    record(Transition.CANCEL, operation(Status.CANCELLED, attempt=2))
    call.end({})
    (change,), (of_call,) = recorded.spans("operation cancel"), recorded.spans(METHOD)
    assert change.parent == of_call.context
    assert not change.links
    assert not of_call.links


def test_every_operation_of_a_call_has_its_own_span(recorded):
    """A claim of many operations is a span of each; the call has bounded links and no id."""
    call = recorded.always.start(METHOD, None)
    contexts = [f"00-{n:032x}-{n:016x}-01" for n in range(1, MAX_LINKS + 3)]
    for context in contexts:
        record(Transition.CLAIM, operation(id=f"op_{context[11:35]}", trace_context=context))
    call.end({})
    claims = recorded.spans("operation claim")
    assert [trace_id(span) for span in claims] == [context[3:35] for context in contexts]
    (of_call,) = recorded.spans(METHOD)
    assert len(of_call.links) == MAX_LINKS
    assert of_call.attributes is not None
    assert "milepost.operation.id" not in of_call.attributes


def test_change_after_the_end_of_its_call_has_a_span(recorded):
    """A change that is committed after its caller has gone has a span, linked to the call."""
    call = recorded.always.start(METHOD, None)
    call.end({})
    record(Transition.START, operation())
    (change,) = recorded.spans("operation start")
    (link,) = change.links
    assert call.span is not None
    assert link.context == call.span.get_span_context()


@pytest.mark.parametrize(
    ("transition", "facts", "error"),
    [
        (Transition.FAIL, {"errors": (OperationError(code="BAD", message="secret"),)}, "BAD"),
        (Transition.RETRY, {"errors": (OperationError(code="KeyError", message="x"),)}, "KeyError"),
        (Transition.FAIL, {"errors": (OperationError(code="a secret", message="x"),)}, "_OTHER"),
        (Transition.RELEASE, {}, None),
        (Transition.COMPLETE, {}, None),
    ],
)
def test_failed_attempt_is_an_error(recorded, transition, facts, error):
    """A failed attempt is an error with its code, if that is a name, and without its message."""
    recorded.never.start(METHOD, None)
    record(transition, operation(Status.PENDING), **facts)
    (span,) = recorded.spans("operation")
    assert span.attributes is not None
    assert span.attributes.get("error.type") == error
    assert span.status.is_ok == (error is None)
    assert "secret" not in span.to_json()


def test_sweep_has_its_cause(recorded):
    """A change by the sweeper has the name and the error of the sweep, and a link to the pass."""
    with recorded.never.working() as work:
        work.begin("sweep leases", BEGUN)
        telemetry.record_sweep(RELEASE, [operation(Status.PENDING)], begun=BEGUN)
        telemetry.record_sweep(PURGE, [operation(Status.FAILED)], begun=BEGUN)
    release, purge = recorded.spans("operation")
    (sweep,) = recorded.spans("sweep leases")
    assert release.attributes is not None
    assert purge.attributes is not None
    assert release.attributes["milepost.sweep"] == "release"
    assert release.attributes["error.type"] == "LEASE_LOST"
    assert purge.attributes.get("error.type") is None
    assert [link.context for link in release.links] == [sweep.context]


def test_background_work_that_finds_nothing_has_no_span(recorded):
    """A pass that finds nothing has no span."""
    with recorded.always.working() as work:
        work.end({"milepost.sweep.more": False})
    assert recorded.spans() == []


@pytest.mark.parametrize(
    ("transition", "status", "facts", "phase"),
    [
        (Transition.CLAIM, Status.PROCESSING, {}, ("pending", 90.0)),
        (Transition.CLAIM, Status.PROCESSING, {"attempt": 2}, None),
        (Transition.PROGRESS, Status.PROCESSING, {}, None),
        (Transition.COMPLETE, Status.COMPLETED, {"complete_time": 100}, ("processing", 10.0)),
        (
            Transition.CANCEL,
            Status.CANCELLED,
            {"cancel_time": 30, "start_time": None, "attempt": 0},
            ("pending", 30.0),
        ),
        (Transition.PURGE, Status.COMPLETED, {"complete_time": 100}, None),
    ],
)
def test_phases_are_recorded_when_they_end(recorded, transition, status, facts, phase):
    """The time in which an operation was pending, and processing, is a span of that length."""
    begin = factories.LONG_AGO
    times = {
        name: begin + timedelta(seconds=value)
        for name, value in facts.items()
        if name.endswith("_time") and value is not None
    }
    own = {"create_time": begin, "start_time": begin + timedelta(seconds=90), "schedule_time": None}
    recorded.never.start(METHOD, None)
    record(transition, operation(status, **own | facts | times))
    found = [
        (span.name.removeprefix("operation "), (span.end_time - span.start_time) / 1e9)
        for span in recorded.spans("operation p")
        if span.end_time and span.start_time and span.start_time != BEGUN
    ]
    assert found == ([phase] if phase else [])


def test_progress_is_thinned():
    """An operation is taken once in an interval, and what is remembered is bounded."""
    now = 0.0
    thinning = Thinning(max_operations=2, clock=lambda: now)
    operation_id = OperationId(ID)
    assert thinning.takes(operation_id)
    assert not thinning.takes(operation_id)
    now = PROGRESS_INTERVAL_S
    assert thinning.takes(operation_id)
    for _ in range(5):
        assert thinning.takes(new_operation_id())
    assert len(thinning) == 2
    assert thinning.takes(operation_id)
