"""Access filters: operations outside of the filter do not exist for the caller."""

import pytest

from milepost.domain.errors import IllegalTransition, OperationNotFound
from milepost.domain.operation import Status, new_operation_id
from milepost.domain.selection import Selection
from milepost.domain.transitions import TABLE, Transition
from milepost.storage.effects import EFFECTS
from tests import factories

# A grant, a function, and whether the grant covers the function.
GRANTS = [
    ("video.transcode", "video.transcode", True),
    ("video.transcode", "video.transcoder", False),
    ("video.transcode", "a.video.transcode", False),
    ("video.transcode", "video.transcode\n", False),
    ("video.transcode", "Video.transcode", False),
    ("video.transcode", "videoXtranscode", False),
    ("video.*", "video.transcode", True),
    ("video.*", "video.", True),
    ("video.*", "video.two\nlines", True),
    ("video.*", "video", False),
    ("video.*", "videos", False),
    ("video.*", "a.video.b", False),
    ("*", "anything at all", True),
    ("a*b", "axxb", False),
    ("a*b", "a*b", True),
    ("a**", "a*b", True),
    ("a**", "ab", False),
    ("a|b", "a", False),
    ("a|b", "a|b", True),
    ("(a)[b]{1}", "ab", False),
    ("(a)[b]{1}", "(a)[b]{1}", True),
    ("a+?", "aa", False),
    ("^a$", "a", False),
    (r"\d\w", "1a", False),
    (r"\d\w", r"\d\w", True),
    ("a.c-d~e&f#g h", "a.c-d~e&f#g h", True),
    ("%_", "ab", False),
    ("übung.*", "übung.π", True),
    ("***:video", "video", False),
    ("(?i)video", "VIDEO", False),
]


@pytest.mark.parametrize("status", [Status.PENDING, Status.PROCESSING, Status.COMPLETED])
async def test_foreign_operation_is_missing(store, stored, status):
    """An operation of another owner fails like a missing one."""
    operation = await factories.reach(store, status)
    before = stored.everything(operation.id)
    stranger = factories.access_filter(factories.STRANGER)
    for operation_id in (operation.id, new_operation_id()):
        calls = [
            store.apply(factories.change(m, operation_id, access_filter=stranger)) for m in EFFECTS
        ]
        calls.append(store.get(operation_id, stranger))
        for call in calls:
            with pytest.raises(OperationNotFound) as caught:
                await call
            assert type(caught.value) is OperationNotFound
            assert str(caught.value) == f"operation {operation_id} does not exist"
            assert caught.value.facts == {"operation_id": operation_id}
    assert stored.everything(operation.id) == before


async def test_stale_stranger_hears_nothing_more(store):
    """The error for another owner does not depend on the revision, attempt or progress."""
    operation = await factories.reach(store, Status.PROCESSING)
    for guess in ({"expected_revision": 1}, {"attempt": 7}, {"progress": 0.1}):
        change = factories.change(
            Transition.PROGRESS,
            operation.id,
            access_filter=factories.access_filter(factories.STRANGER),
            **guess,
        )
        with pytest.raises(OperationNotFound) as caught:
            await store.apply(change)
        assert type(caught.value) is OperationNotFound


async def test_grants_are_names_or_prefixes(store):
    """A grant is a function, or a prefix that ends in a star; other characters are literal."""
    read: dict[tuple[str, str], bool] = {}
    changed: dict[tuple[str, str], bool] = {}
    for grant, function, _ in GRANTS:
        operation = await factories.create(store, function=function)
        worker = factories.access_filter("worker", functions=(grant,))
        read[grant, function] = await inside(store.get(operation.id, worker))
        start = factories.change(Transition.START, operation.id, access_filter=worker)
        changed[grant, function] = await inside(store.apply(start))
    assert read == changed == {(grant, function): covers for grant, function, covers in GRANTS}


async def inside(call):
    """Return whether the call found its operation."""
    try:
        await call
    except OperationNotFound:
        return False
    return True


async def test_one_of_several_grants_is_enough(store):
    """A worker has access to every function that one of its grants covers, and to no other."""
    worker = factories.access_filter("worker", functions=("audio.*", "video.transcode"))
    for function, covered in (("audio.mix", True), ("video.transcode", True), ("video.x", False)):
        operation = await factories.create(store, function=function)
        assert await inside(store.get(operation.id, worker)) is covered


async def test_refusals_reach_who_is_granted(store):
    """A worker with a grant gets the error of an illegal transition, not that of a missing one."""
    operation = await factories.reach(store, Status.COMPLETED)
    worker = factories.access_filter("worker", functions=("video.*",))
    with pytest.raises(IllegalTransition):
        await store.apply(factories.change(Transition.PROGRESS, operation.id, access_filter=worker))


@pytest.mark.parametrize(
    "asker",
    [
        factories.access_filter(),
        factories.access_filter("worker", functions=("video.*",)),
        factories.access_filter("admin", everything=True),
    ],
    ids=lambda asker: asker.subject,
)
async def test_who_is_inside_may_move(store, stored, asker):
    """The owner, a granted worker and an admin may change an operation; the event names each."""
    operation = await factories.create(store)
    for transition in (Transition.START, Transition.PROGRESS, Transition.COMPLETE):
        outcome = await store.apply(factories.change(transition, operation.id, access_filter=asker))
        assert outcome.operation.owner == factories.OWNER
    actors = [event["actor"] for event in stored.events(operation.id)]
    assert actors == [factories.OWNER, asker.subject, asker.subject]
    assert {event["owner"] for event in stored.events(operation.id)} == {factories.OWNER}


async def test_lists_hold_the_own_operations(store):
    """A list has only the operations that its caller owns; the list of an admin has all."""
    mine = await factories.create(store)
    theirs = await factories.create(store, owner="bob")

    async def listed(asker, owner=None):
        page = await factories.listed(store, asker, Selection(owner=owner), None, 50, full=False)
        return {operation.id for operation in page}

    assert await listed(factories.access_filter()) == {mine.id}
    assert await listed(factories.access_filter(functions=("*",))) == {mine.id}
    assert await listed(factories.access_filter("worker", functions=("*",))) == set()
    assert await listed(factories.access_filter(), owner="bob") == set()
    admin = factories.access_filter("admin", everything=True)
    assert await listed(admin) == {mine.id, theirs.id}
    assert await listed(admin, owner="bob") == {theirs.id}


async def test_past_work_is_no_key(store):
    """A worker without its former grant cannot read an operation that it changed before."""
    operation = await factories.create(store)
    worker = factories.access_filter("worker", functions=("video.*",))
    await store.apply(factories.change(Transition.START, operation.id, access_filter=worker))
    with pytest.raises(OperationNotFound) as caught:
        await store.get(operation.id, factories.access_filter("worker"))
    assert type(caught.value) is OperationNotFound


def test_every_actor_of_the_table_is_tried():
    """Every actor of the table is one that these tests use, or the sweeper."""
    roles = {str(actor) for rule in TABLE.values() for actor in rule.by}
    assert roles == {"caller", "owner", "worker", "admin", "sweeper"}
