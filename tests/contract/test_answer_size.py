"""Answers are bounded in bytes: claims and pages take only what fits."""

import dataclasses
import json
from collections import Counter
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.api.messages import fill
from milepost.domain.claim import ClaimRequest
from milepost.domain.operation import Status
from milepost.domain.selection import Position, Selection
from milepost.domain.transitions import Transition
from milepost.gen.milepost.v1 import operation_pb2 as pb
from milepost.storage.answer_size import answer_bytes, bytes_of
from milepost.storage.tables import operations
from tests import factories

KB = 1_000
MAX_BYTES = 100 * KB
ME = factories.access_filter()
CLAIM = ClaimRequest(
    functions=(factories.FUNCTION,),
    max_operations=100,
    max_bytes=MAX_BYTES,
    lease=timedelta(seconds=30),
    actor="wally",
    worker="w" * 255,
)
LARGE = json.dumps({"k": "x" * (30 * KB)})
JSON = {
    "numbers": json.dumps([0] * 1_000, separators=(",", ":")),
    "fractions": json.dumps([0.1] * 1_000),
    "empty objects": json.dumps([{}] * 1_000, separators=(",", ":")),
    "empty lists": json.dumps([[]] * 1_000, separators=(",", ":")),
    "empty texts": json.dumps([""] * 1_000, separators=(",", ":")),
    "nulls": json.dumps([None] * 1_000, separators=(",", ":")),
    "members": json.dumps({f"{n:x}": n % 9 for n in range(1_000)}, separators=(",", ":")),
    "nested": json.dumps([[[[{"a": {"b": [{"c": []}]}}]]]] * 300, separators=(",", ":")),
    "commas": json.dumps("," * 1_000),
    "escapes": json.dumps('\n\u0001"\\' * 300),
    "letters": json.dumps("é\u4e2d😀" * 300, ensure_ascii=False),
    "long numbers": json.dumps([0] * 40_000, separators=(",", ":")),
    "short": json.dumps(1),
}


def message_bytes(operation):
    """Return the bytes of the operation in an answer to its owner."""
    answer = pb.Operation()
    fill(answer, operation, operation.owner)
    return answer.ByteSize() + 5  # its tag and length


def measured(stored, operation):
    """Return the size of the operation as the database computes it."""
    query = sa.select(answer_bytes(operations)).where(operations.c.id == operation.id)
    with stored.engine.connect() as connection:
        return connection.execute(query).scalar_one()


async def test_size_is_an_upper_bound(store, stores, stored):
    """The size in SQL, and that of a claimed operation, is at least that of the message."""
    names = dict.fromkeys(("version", "original_request_id"), "中" * 255)
    for kind, content in JSON.items():
        metadata = f'{{"k":{content}}}'
        created = await factories.create(store, metadata=metadata, **names)
        assert measured(stored, created) >= message_bytes(created), kind
        (claimed,) = await stores.work.claim(CLAIM)
        assert claimed.id == created.id
        assert bytes_of(claimed) >= message_bytes(claimed), kind
        errors = (factories.error(details=metadata, source="中" * 255),) * 2
        failure = factories.change(Transition.FAIL, created.id, errors=errors)
        failed = (await store.apply(failure)).operation
        assert measured(stored, failed) >= message_bytes(failed), kind


async def test_size_follows_the_content(store, stored):
    """The bound is near the size of large texts and results, which are not read for it."""
    for value in (b"", b"x" * 300 * KB):
        operation = await factories.reach(store, Status.PROCESSING, metadata=LARGE)
        result = factories.payload(value)
        change = factories.change(Transition.COMPLETE, operation.id, result=result)
        completed = (await store.apply(change)).operation
        assert 0 <= measured(stored, completed) - message_bytes(completed) < 2 * KB


async def test_claim_takes_what_fits(store, stores, stored):
    """A claim takes the oldest operations that fit into the answer, and leaves the others as is."""
    created = [await factories.create(store, metadata=LARGE) for _ in range(7)]
    ids = [operation.id for operation in sorted(created, key=lambda o: (o.create_time, o.id))]
    before = {operation_id: stored.everything(operation_id) for operation_id in ids[3:]}
    claimed = await stores.work.claim(CLAIM)
    assert sorted(operation.id for operation in claimed) == sorted(ids[:3])
    assert sum(map(message_bytes, claimed)) <= MAX_BYTES
    assert {operation_id: stored.everything(operation_id) for operation_id in ids[3:]} == before
    assert len(await stores.work.claim(CLAIM)) == 3
    assert len(await stores.work.claim(CLAIM)) == 1


async def test_claim_takes_at_least_one(store, stores):
    """An operation that is larger than an answer may be is claimed alone."""
    created = [await factories.create(store, metadata=LARGE) for _ in range(3)]
    claim = dataclasses.replace(CLAIM, max_bytes=10)
    claimed = [await stores.work.claim(claim) for _ in range(4)]
    assert [len(each) for each in claimed] == [1, 1, 1, 0]
    assert {operation.id for (operation,) in claimed[:3]} == {each.id for each in created}


@pytest.mark.parametrize("owners", [1, 2, 40])
async def test_functions_and_owners_share_the_bytes(store, stores, owners):
    """A claim of several functions and owners is bounded as a whole, and all work is claimed."""
    functions = ("video.a", "video.b", "video.c")
    for n in range(60):
        await factories.create(
            store, function=functions[n % 3], owner=f"owner-{n % owners}", metadata=LARGE
        )
    claim = dataclasses.replace(CLAIM, functions=functions)
    sizes = Counter[int]()
    while claimed := await stores.work.claim(claim):
        assert sum(map(message_bytes, claimed)) <= MAX_BYTES
        sizes[len(claimed)] += 1
    assert sum(size * count for size, count in sizes.items()) == 60
    assert sizes[3] >= 18


@pytest.mark.parametrize("full", [True, False])
async def test_pages_take_what_fits(store, full):
    """Pages whose answers would be too large are shorter, and together have every operation."""
    names = dict.fromkeys(("version", "original_request_id"), "n" * 255)
    metadata = LARGE if full else None
    created = [await factories.create(store, metadata=metadata, **names) for _ in range(30)]
    max_bytes = MAX_BYTES if full else 10 * KB
    seen, after, is_last = [], None, False
    while not is_last:
        page = await store.list(ME, Selection(), after, 25, full=full, max_bytes=max_bytes)
        assert 1 < len(page.items) < 6
        assert all((operation.metadata is None) is not full for operation in page.items)
        assert sum(map(message_bytes, page.items)) <= max_bytes
        seen += [operation.id for operation in page.items]
        after = Position(create_time=page.items[-1].create_time, id=seen[-1])
        is_last = page.is_last
    newest = sorted(created, key=lambda o: (o.create_time, o.id), reverse=True)
    assert seen == [operation.id for operation in newest]


@pytest.mark.parametrize("full", [True, False])
async def test_page_has_at_least_one(store, full):
    """A page has one operation, whatever its size."""
    for _ in range(2):
        await factories.create(store, metadata=LARGE)
    page = await store.list(ME, Selection(), None, 50, full=full, max_bytes=10)
    assert (len(page.items), page.is_last) == (1, False)
    after = Position(create_time=page.items[0].create_time, id=page.items[0].id)
    page = await store.list(ME, Selection(), after, 50, full=full, max_bytes=10)
    assert (len(page.items), page.is_last) == (1, True)
    after = Position(create_time=page.items[0].create_time, id=page.items[0].id)
    page = await store.list(ME, Selection(), after, 50, full=full, max_bytes=10)
    assert (page.items, page.is_last) == ([], True)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(("limit", "is_last"), [(2, False), (3, True), (4, True)])
async def test_last_page_is_known(store, full, limit, is_last):
    """The last page is the one after which there is nothing, also if it is full."""
    for _ in range(3):
        await factories.create(store)
    page = await store.list(ME, Selection(), None, limit, full=full, max_bytes=factories.PLENTY)
    assert (len(page.items), page.is_last) == (min(limit, 3), is_last)
