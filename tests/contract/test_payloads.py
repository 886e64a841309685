"""Payloads round-trip: metadata as the same text, results as the same bytes."""

import asyncio
import json
import random
from datetime import timedelta

import pytest

from milepost.domain.operation import Payload, Status, new_operation_id
from milepost.domain.selection import Selection
from milepost.domain.transitions import Transition
from tests import factories

METADATA = [
    None,
    "{}",
    '{"a":{"b":[1,2.5,true,null,{}]},"empty":{},"none":[]}',
    '{"naïve":"☃ 😀 \u202e","escaped":"\\u0000\\n","spaces" :  1}',
    '{"owner":"mallory","callback_url":"x","expire_time":0}',
    json.dumps({"long": "é" * 32_000}, ensure_ascii=False),
]
RESULTS = {
    "empty": b"",
    "every byte": bytes(range(256)),
    "1 MiB": random.Random(1).randbytes(1 << 20),  # noqa: S311 - any bytes will do
}


async def everywhere(store, operation):
    """Return the operation as a get and a list read it."""
    read = await store.get(operation.id, factories.access_filter())
    (listed,) = await factories.listed(
        store, factories.access_filter(), Selection(), None, 50, full=True
    )
    assert read == listed
    return read


@pytest.mark.parametrize("metadata", METADATA, ids=range(len(METADATA)))
async def test_metadata_is_the_same_text(store, metadata):
    """Metadata keeps its text, character for character, after every transition."""
    operation = await factories.reach(store, Status.CANCELLED, metadata=metadata)
    assert operation.metadata == metadata
    assert (await everywhere(store, operation)).metadata == metadata


@pytest.mark.parametrize("name", RESULTS)
async def test_result_is_the_same_bytes(store, name):
    """A result keeps its bytes; an empty result is not absent."""
    operation = await factories.reach(store, Status.PROCESSING)
    result = Payload(type_url="example.com/any.Type", value=RESULTS[name])
    change = factories.change(Transition.COMPLETE, operation.id, result=result)
    assert (await store.apply(change)).operation.result == result
    assert (await everywhere(store, operation)).result == result


async def test_results_of_one_batch_stay_apart(store):
    """Concurrent results are stored with their own operations."""
    results = {
        (await factories.reach(store, Status.PROCESSING)).id: Payload(
            type_url=f"example.com/{n}", value=bytes([n]) * n
        )
        for n in range(12)
    }
    for operation_id, result in results.items():
        change = factories.change(Transition.COMPLETE, operation_id, result=result)
        await store.apply(change)
    for operation_id, result in results.items():
        assert (await store.get(operation_id, factories.access_filter())).result == result


async def test_errors_keep_their_order(store):
    """Errors keep their order, code, message, source and details."""
    operation = await factories.reach(store, Status.PROCESSING)
    errors = (
        factories.error("B", "naïve ☃ \x00 \n 'quoted'", source="input[2]"),
        factories.error("A", "second", details=json.dumps({"nested": {"list": [1, 0.1, None]}})),
        factories.error("B", "third", source="", details="{}"),
    )
    change = factories.change(Transition.FAIL, operation.id, errors=errors)
    assert (await store.apply(change)).operation.errors == errors
    assert (await everywhere(store, operation)).errors == errors


async def test_texts_are_the_same(store):
    """Function, version, request id, message and worker keep their text."""
    odd = "naïve ☃ 😀 'quoted' \\ \" % _ ; --"
    operation = await factories.create(
        store, function=odd, version=odd, original_request_id=odd, callback_url=None
    )
    change = factories.change(Transition.PROGRESS, operation.id, message=odd, worker=odd)
    await store.apply(change)
    read = await everywhere(store, operation)
    found = {read.function, read.version, read.original_request_id, read.progress_message}
    assert found | {read.worker} == {odd}


ODD_TEXTS = [
    "",
    " ",
    "NULL",
    "null",
    "{}",
    "{a,b}",
    '"',
    '""',
    "\\",
    '\\"',
    "a,b",
    "a\nb\tc",
    "'; --",
    "%s %(id)s :id ?",
    "☃ 😀 \u202e",
    "\\x41",
]


async def test_odd_texts_of_one_batch(store):
    """Texts with special characters of a database keep their text, also in one batch."""
    new_operations = {
        new_operation_id(): factories.new_operation(
            version=text, metadata=text, original_request_id=None if n % 3 else text
        )
        for n, text in enumerate(ODD_TEXTS)
    }
    await all_at_once(
        store.insert(each, new_operation) for each, new_operation in new_operations.items()
    )
    texts = dict(zip(new_operations, ODD_TEXTS, strict=True))
    await all_at_once(
        store.apply(factories.change(Transition.START, each, worker=text))
        for each, text in texts.items()
    )
    await all_at_once(
        store.apply(factories.change(Transition.PROGRESS, each, message=text, progress=n / 16))
        for n, (each, text) in enumerate(texts.items())
    )
    found = await all_at_once(store.get(each, factories.access_filter()) for each in texts)
    for n, (operation, new_operation) in enumerate(
        zip(found, new_operations.values(), strict=True)
    ):
        text = new_operation.version
        assert (operation.version, operation.metadata) == (text, text)
        assert operation.original_request_id == new_operation.original_request_id
        assert operation.progress_message == text
        assert operation.progress == n / 16


async def test_payloads_of_one_batch(store):
    """Results, errors and durations of one batch keep their values."""
    spans = [timedelta(seconds=60 + n, microseconds=n) for n in range(4)]
    created = await all_at_once(
        store.insert(new_operation_id(), factories.new_operation(ttl=span, retry_after=span))
        for span in spans
    )
    ids = [outcome.operation.id for outcome in created]
    assert [(o.operation.ttl, o.operation.retry_after) for o in created] == [(s, s) for s in spans]
    await all_at_once(store.apply(factories.change(Transition.START, each)) for each in ids)
    results = [factories.payload(value) for value in (*RESULTS.values(), b'\\x"{},')]
    done = await all_at_once(
        store.apply(factories.change(Transition.COMPLETE, each, result=result))
        for each, result in zip(ids, results, strict=True)
    )
    assert [outcome.operation.result for outcome in done] == results
    errors = [(factories.error("E", text, source=text),) for text in ODD_TEXTS]
    failing = [(await factories.create(store)).id for _ in errors]
    failed = await all_at_once(
        store.apply(factories.change(Transition.FAIL, each, errors=error))
        for each, error in zip(failing, errors, strict=True)
    )
    assert [outcome.operation.errors for outcome in failed] == errors


async def all_at_once(calls):
    """Return the results of concurrent calls."""
    return await asyncio.gather(*calls)
