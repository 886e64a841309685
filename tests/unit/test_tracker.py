"""The use cases over a real store."""

import dataclasses
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from milepost import telemetry
from milepost.domain.errors import (
    IdsExhausted,
    IllegalTransition,
    OperationNotFound,
    PermissionDenied,
    WebhooksNotConfigured,
)
from milepost.domain.limits import Limits
from milepost.domain.operation import (
    CreateRequest,
    OperationError,
    OperationId,
    Payload,
    Principal,
    Role,
    Status,
    new_operation_id,
)
from milepost.domain.selection import Selection
from milepost.domain.transitions import Preconditions
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.stores import Stores
from milepost.tracking.claimer import PendingWork
from milepost.tracking.committer import Committer
from milepost.tracking.page_tokens import PageTokens
from milepost.tracking.subscriptions import Subscriptions
from milepost.tracking.tracker import MAX_ID_TRIES, WEBHOOK_EVENTS, Tracker
from tests.contract.stored import Stored

ALICE = Principal(subject="alice", roles=frozenset({Role.CALLER}), credential_id="a")
ROOT = Principal(subject="root", roles=frozenset({Role.ADMIN}), credential_id="r")
WALLY = Principal(
    subject="wally", roles=frozenset({Role.WORKER}), credential_id="w", functions=("video.*",)
)
CREATE_REQUEST = CreateRequest(function="video.transcode")
NO_PRECONDITIONS = Preconditions()
ERRORS = (OperationError(code="A", message="b"),)


@pytest.fixture
async def stores(sqlite_url: str) -> AsyncIterator[Stores]:
    """The stores over a fresh database."""
    batchers = Batchers(open_engine(sqlite_url))
    yield Stores(batchers)
    await batchers.close()


@pytest.fixture
def stored(sqlite_url: str) -> Stored:
    """The rows of the database."""
    return Stored(open_engine(sqlite_url))


@pytest.fixture
def tracker(stores: Stores) -> Tracker:
    """The use cases over the stores."""
    return tracker_of(stores)


def tracker_of(stores: Stores, *ids: str) -> Tracker:
    """Return the use cases; new operations get these ids, or random ones."""
    source = iter(ids)
    work = PendingWork(stores.work)
    return Tracker(
        stores.operations,
        Committer(stores.operations, Subscriptions(), work),
        limits=Limits(),
        page_tokens=PageTokens(secrets.token_bytes(32)),
        work=work,
        new_id=(lambda: OperationId(next(source))) if ids else new_operation_id,
    )


def transitions(transition: str) -> float:
    """Return the number of counted transitions of this name."""
    return (
        telemetry.registry.get_sample_value(
            "milepost_transitions_total", {"transition": transition}
        )
        or 0.0
    )


async def test_taken_id_is_tried_again(stores, tracker):
    """A create whose id is taken tries another one, up to ten times."""
    taken = (await tracker.create(ALICE, CREATE_REQUEST)).operation.id
    fresh = new_operation_id()
    unlucky = tracker_of(stores, *[taken] * (MAX_ID_TRIES - 1), fresh)
    assert (await unlucky.create(ALICE, CREATE_REQUEST)).operation.id == fresh


async def test_ten_taken_ids_are_a_defect(stores, stored, tracker):
    """After ten taken ids in a row the create fails, and nothing is stored."""
    taken = (await tracker.create(ALICE, CREATE_REQUEST)).operation.id
    before = stored.everything(taken)
    counted = transitions("create")
    unlucky = tracker_of(stores, *[taken] * MAX_ID_TRIES, new_operation_id())
    with pytest.raises(IdsExhausted):
        await unlucky.create(ALICE, CREATE_REQUEST)
    assert MAX_ID_TRIES == 10
    assert stored.count() == 1
    assert stored.everything(taken) == before
    assert transitions("create") == counted


async def test_create_clamps(tracker):
    """Values of a create are clamped to the limits."""
    create_request = dataclasses.replace(
        CREATE_REQUEST, ttl=timedelta(days=30), retry_after=timedelta(0), max_attempts=0
    )
    operation = (await tracker.create(ALICE, create_request)).operation
    assert operation.ttl == timedelta(days=7)
    assert operation.retry_after == timedelta(seconds=1)
    assert operation.max_attempts == 1
    assert operation.owner == ALICE.subject


async def test_callback_needs_a_key(tracker, stored):
    """Without a signing key for webhooks a callback URL is refused, and nothing is stored."""
    with pytest.raises(WebhooksNotConfigured):
        await tracker.create(
            ALICE, dataclasses.replace(CREATE_REQUEST, callback_url="https://example.com/")
        )
    assert stored.count() == 0


def test_webhooks_are_sent_for_ends():
    """By default, webhooks are sent for every terminal status."""
    assert WEBHOOK_EVENTS == (
        "operation.cancelled",
        "operation.completed",
        "operation.expired",
        "operation.failed",
    )


async def test_life(tracker):
    """A life by owner, worker and admin counts every transition once."""
    names = ("create", "start", "progress", "complete", "purge")
    before = {name: transitions(name) for name in names}
    operation = (await tracker.create(ALICE, CREATE_REQUEST)).operation
    started = await tracker.start(WALLY, operation.id, Preconditions(request_id="r"), progress=0.1)
    again = await tracker.start(WALLY, operation.id, Preconditions(request_id="r"), progress=0.1)
    assert (started.replayed, again.replayed) == (False, True)
    assert started.operation.worker == WALLY.subject
    await tracker.update_progress(WALLY, operation.id, NO_PRECONDITIONS, progress=0.5, message="m")
    payload = Payload(type_url="x/y", value=b"z")
    done = (await tracker.complete(WALLY, operation.id, NO_PRECONDITIONS, result=payload)).operation
    assert (done.status, done.result, done.progress) == (Status.COMPLETED, payload, 1.0)
    assert await tracker.get(ROOT, operation.id) == done
    await tracker.delete(ROOT, operation.id, NO_PRECONDITIONS)
    assert {name: transitions(name) - before[name] for name in names} == dict.fromkeys(names, 1)


async def test_use_cases_are_limited_by_role(tracker):
    """Workers may not cancel, admins may not work, and strangers may do nothing."""
    operation = (await tracker.create(ALICE, CREATE_REQUEST)).operation
    bob = dataclasses.replace(ALICE, subject="bob")
    calls = [
        *(tracker.cancel(who, operation.id, NO_PRECONDITIONS) for who in (WALLY, bob)),
        *(tracker.delete(who, operation.id, NO_PRECONDITIONS) for who in (WALLY, bob)),
        *(tracker.start(who, operation.id, NO_PRECONDITIONS) for who in (ROOT, bob)),
        *(tracker.fail(who, operation.id, NO_PRECONDITIONS, errors=ERRORS) for who in (ROOT, bob)),
        tracker.get(bob, operation.id),
    ]
    for call in calls:
        with pytest.raises(OperationNotFound):
            await call
    assert await tracker.get(ALICE, operation.id) == operation


async def test_refused_transitions_are_not_counted(tracker):
    """Only committed transitions are counted."""
    operation = (await tracker.create(ALICE, CREATE_REQUEST)).operation
    before = transitions("complete")
    with pytest.raises(IllegalTransition):
        await tracker.complete(ALICE, operation.id, NO_PRECONDITIONS)
    assert transitions("complete") == before


async def test_pages(tracker):
    """Page tokens lead through all operations, and the last page has no token."""
    ids = {(await tracker.create(ALICE, CREATE_REQUEST)).operation.id for _ in range(5)}
    token, sizes, found = "", [], set()
    while True:
        page, token = await tracker.list(ALICE, Selection(), page_size=2, page_token=token)
        sizes.append(len(page))
        found |= {operation.id for operation in page}
        if not token:
            break
    assert (sizes, found) == ([2, 2, 1], ids)


async def test_list_of_others(tracker):
    """Only an admin lists operations of others."""
    operation = (await tracker.create(ALICE, CREATE_REQUEST)).operation
    theirs = Selection(owner=ALICE.subject)
    assert (await tracker.list(ROOT, theirs))[0][0].id == operation.id
    assert (await tracker.list(ALICE, theirs))[0][0].id == operation.id
    with pytest.raises(PermissionDenied):
        await tracker.list(dataclasses.replace(ALICE, subject="bob"), theirs)
