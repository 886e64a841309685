"""A database transaction has a span if a recorded call was in it, and both are linked."""

import asyncio
import contextvars

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from milepost.domain.errors import OperationNotFound, StoreUnavailable
from milepost.domain.operation import new_operation_id
from milepost.domain.transitions import Transition
from milepost.telemetry import Sampler, Trace, Tracing
from tests import factories
from tests.waiting import until


class Recorded:
    """Calls with and without a span, and the spans of the transactions that they were in."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._provider = provider

    def call(self, *, sampled: bool = True) -> Trace:
        """Let the current task be a call."""
        return Tracing(self._provider, Sampler(ratio=float(sampled))).start("call", None)

    @property
    def transactions(self) -> list[ReadableSpan]:
        """The spans of transactions so far."""
        found = self._exporter.get_finished_spans()
        return [span for span in found if span.kind is SpanKind.CLIENT]

    async def only(self) -> ReadableSpan:
        """Wait for the only transaction and return it."""
        await until(lambda: bool(self.transactions))
        (span,) = self.transactions
        return span


@pytest.fixture
def recorded() -> Recorded:
    """Calls whose spans are kept."""
    return Recorded()


async def as_call(recorded, work, *, sampled=True):
    """Await the work as a call of its own; return its trace."""

    async def run():
        call = recorded.call(sampled=sampled)
        await work()
        return call

    return await asyncio.create_task(run(), context=contextvars.copy_context())


async def test_transaction_of_one_call_is_its_child(store, engine, recorded):
    """The transaction of one recorded call is a child of it, with the attributes of databases."""
    call = await as_call(
        recorded, lambda: store.insert(new_operation_id(), factories.new_operation())
    )
    span = await recorded.only()
    assert span.name == "INSERT operations"
    assert span.parent == call.recording
    assert not span.links
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time > span.start_time
    assert span.attributes is not None
    found = dict(span.attributes)
    assert found.pop("db.system.name") == engine.dialect.name
    assert str(found.pop("db.namespace")) in str(engine.url.database)
    found.pop("server.address", None)
    found.pop("server.port", None)
    assert found == {"db.operation.name": "INSERT", "db.collection.name": "operations"}


async def test_call_that_is_not_recorded_has_no_transaction(store, recorded):
    """A transaction without a recorded call has no span."""
    await as_call(recorded, lambda: store.insert(new_operation_id(), factories.new_operation()))
    await recorded.only()
    await as_call(
        recorded,
        lambda: store.insert(new_operation_id(), factories.new_operation()),
        sampled=False,
    )
    await store.insert(new_operation_id(), factories.new_operation())
    assert len(recorded.transactions) == 1


async def test_transaction_of_several_calls_links_to_each(store, recorded):
    """A transaction that carried several recorded calls links to each, and each to it."""
    created = await create(store, 5)
    recorded_calls = await asyncio.gather(
        *(
            as_call(
                recorded,
                lambda operation=operation: store.apply(
                    factories.change(Transition.START, operation.id)
                ),
                sampled=number < 3,
            )
            for number, operation in enumerate(created)
        )
    )
    span = await recorded.only()
    assert span.name == "BATCH UPDATE operations"
    assert span.parent is None
    assert span.attributes is not None
    assert span.attributes["db.operation.batch.size"] == 5
    ids = {call.recording.span_id for call in recorded_calls if call.recording is not None}
    assert {link.context.span_id for link in span.links} == ids
    for call in recorded_calls:
        if call.span is not None:
            assert isinstance(call.span, ReadableSpan)
            assert [link.context for link in call.span.links] == [span.context]


async def test_one_recorded_call_of_a_batch_is_the_parent(store, recorded):
    """A transaction with one recorded call is its child, and says how many calls it carried."""
    created = await create(store, 4)
    calls = await asyncio.gather(
        *(
            as_call(
                recorded,
                lambda operation=operation: store.apply(
                    factories.change(Transition.START, operation.id)
                ),
                sampled=number == 2,
            )
            for number, operation in enumerate(created)
        )
    )
    span = await recorded.only()
    assert span.parent == calls[2].recording
    assert span.attributes is not None
    assert span.attributes["db.operation.batch.size"] == 4


async def test_refused_call_does_not_fail_its_transaction(store, recorded):
    """A transaction is no error because a call was refused in it."""

    async def start_missing():
        with pytest.raises(OperationNotFound):
            await store.apply(factories.change(Transition.START, new_operation_id()))

    await as_call(recorded, start_missing)
    span = await recorded.only()
    assert span.status.is_ok


async def test_transaction_that_fails_is_an_error(batchers, recorded):
    """A transaction that the database did not answer is an error with the reason of the refusal."""

    def hang(_session, _items):
        raise StoreUnavailable

    async def fail():
        with pytest.raises(StoreUnavailable):
            await batchers.writes.submit(hang, None, object())

    await as_call(recorded, fail)
    span = await recorded.only()
    assert not span.status.is_ok
    assert span.attributes is not None
    assert span.attributes["error.type"] == StoreUnavailable.reason


async def create(store, count):
    """Create operations outside of any call."""
    results = [
        await store.insert(new_operation_id(), factories.new_operation()) for _ in range(count)
    ]
    return [result.operation for result in results]
