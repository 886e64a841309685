"""The outbox: claims, settlements, lists and redeliveries."""

import asyncio
import dataclasses
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.delivery import (
    Attempt,
    DeliveryClaim,
    DeliverySelection,
    DeliveryStatus,
    Settlement,
)
from milepost.domain.errors import DeliveryNotFound, IllegalTransition
from milepost.domain.operation import Status
from milepost.domain.selection import Position
from milepost.domain.transitions import Transition
from milepost.storage.creation import SWEEPER
from milepost.storage.delivery_claims import claim_statement, claiming_values
from milepost.storage.dialects import Instant, Span
from milepost.storage.session import Session
from milepost.storage.tables import deliveries
from tests import factories
from tests.contract.stored import answers

LEASE = timedelta(seconds=30)
CLAIM = DeliveryClaim(limit=10, per_host=10, lease=LEASE)
MINUTE = timedelta(minutes=1)
ENDS = ("operation.completed", "operation.failed", "operation.cancelled", "operation.expired")


@pytest.fixture
def outbox(stores):
    """The delivery store of a fresh database."""
    return stores.deliveries


@pytest.fixture
def other(others):
    """The delivery store of another replica."""
    return others.deliveries


async def ended(store, **overrides):
    """Return a completed operation with one delivery."""
    overrides = {"callback_events": ENDS, **overrides}
    return await factories.reach(store, Status.COMPLETED, **overrides)


async def claim(outbox, **overrides):
    """Return the due deliveries, claimed."""
    return await outbox.claim(dataclasses.replace(CLAIM, **overrides))


def settlement(claimed, status=DeliveryStatus.DELIVERED, delay=MINUTE, **overrides):
    """Return the settlement of an attempt at a claimed delivery."""
    failed = status is not DeliveryStatus.DELIVERED
    attempt = Attempt(
        number=claimed.number,
        start_time=claimed.claim_time,
        duration=timedelta(milliseconds=12),
        status_code=500 if failed else 204,
        error="answered 500" if failed else None,
    )
    plain = Settlement(
        id=claimed.id,
        lease=claimed.lease,
        attempt=attempt,
        status=status,
        tries=claimed.tries + failed,
        delay=delay,
    )
    return dataclasses.replace(plain, **overrides)


def make_due(engine):
    """Make all pending deliveries due, as if every delay and lease had ended."""
    hour = sa.literal(timedelta(hours=1), Span())
    due = sa.type_coerce(deliveries.c.next_attempt_time.op("-")(hour), Instant())
    with engine.begin() as connection:
        connection.execute(sa.update(deliveries).values(next_attempt_time=due))


async def listed(outbox, owner=factories.OWNER, after=None, limit=10, **selection):
    """Return the deliveries of an owner."""
    return await outbox.deliveries(owner, DeliverySelection(**selection), after, limit)


async def test_claim_has_what_the_body_needs(outbox, store):
    """A claimed delivery has a snapshot of its operation."""
    operation = await ended(store, metadata='{"a":1}', trace_context="00-1-2-01")
    (claimed,) = await claim(outbox)
    assert (claimed.operation_id, claimed.revision) == (operation.id, operation.revision)
    assert (claimed.type, claimed.owner) == ("operation.completed", factories.OWNER)
    assert (claimed.callback_url, claimed.host) == (operation.callback_url, "example.com")
    assert (claimed.number, claimed.tries) == (1, 0)
    assert claimed.claim_time >= claimed.create_time
    snapshot = claimed.snapshot
    for name in ("function", "status", "result", "errors", "metadata", "create_time"):
        assert getattr(snapshot, name) == getattr(operation, name), name
    assert snapshot.complete_time == operation.complete_time
    assert snapshot.trace_context == "00-1-2-01"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Example.COM/hook", "example.com"),
        ("http://127.0.0.1:8080?x=/y", "127.0.0.1:8080"),
        ("https://[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ("https://a.example/b?c=d", "a.example"),
    ],
)
async def test_host_of_a_delivery(outbox, store, url, host):
    """The host of a delivery is the host and port of its URL, in lower case."""
    await ended(store, callback_url=url)
    (claimed,) = await claim(outbox)
    assert claimed.host == host


async def test_one_dispatcher_gets_it(outbox, other, store):
    """Concurrent claims lease each delivery to one dispatcher."""
    operations = [await ended(store) for _ in range(12)]
    found = await answers(*(claim(each, limit=4) for each in (outbox, other) * 3))
    ids = [claimed.operation_id for batch in found for claimed in batch]
    while rest := await claim(outbox):
        ids += [claimed.operation_id for claimed in rest]
    assert sorted(ids) == sorted(operation.id for operation in operations)


async def test_claim_is_fair_between_hosts(outbox, store):
    """A claim takes at most `per_host` deliveries of a host, and none of a busy host."""
    for n in range(5):
        await ended(store, callback_url=f"https://slow.example/{n}")
    await ended(store, callback_url="https://fast.example/")
    await ended(store, callback_url="https://down.example/")
    hosts = [each.host for each in await claim(outbox, per_host=2, busy=["down.example"])]
    assert sorted(hosts) == ["fast.example", "slow.example", "slow.example"]
    assert len(await claim(outbox, limit=1)) == 1


async def test_busy_destination_spares_other_owners(outbox, store):
    """A busy destination gets no delivery; another owner on the same host does."""
    for owner in ("mallory", "mallory", "alice"):
        await ended(store, owner=owner, callback_url="https://shared.example/")
    (claimed,) = await claim(outbox, busy=["shared.example mallory"])
    assert (claimed.owner, claimed.destination) == ("alice", "shared.example alice")


async def test_receivers_on_trial_get_one_delivery_each(outbox, store):
    """Of a host on trial one delivery is claimed, of a destination one, within their limit."""
    for owner in ("mallory", "mallory", "alice", "alice"):
        for host in ("down.example", "shared.example", "fine.example"):
            await ended(store, owner=owner, callback_url=f"https://{host}/")
    on_trial = ["down.example", "shared.example mallory"]
    assert await claim(outbox, limit=0, on_trial=on_trial, on_trial_limit=0) == []
    claimed = await claim(outbox, on_trial=on_trial, on_trial_limit=10)
    assert sorted(each.destination for each in claimed) == [
        "down.example mallory",
        *["fine.example alice"] * 2,
        *["fine.example mallory"] * 2,
        *["shared.example alice"] * 2,
        "shared.example mallory",
    ]
    assert len(await claim(outbox, on_trial=on_trial, on_trial_limit=1)) == 1


async def test_lost_lease_makes_it_due_again(engine, outbox, other, store):
    """A delivery with a lost lease is claimed again, and the old lease no longer settles it."""
    await ended(store)
    (first,) = await claim(outbox)
    assert await claim(other) == []
    make_due(engine)
    (second,) = await claim(other)
    assert (second.id, second.number) == (first.id, 2)
    assert not await outbox.settle(settlement(first))
    (shown,) = await listed(outbox)
    assert shown.status is DeliveryStatus.PENDING
    assert await other.settle(settlement(second))
    (shown,) = await listed(outbox)
    assert shown.status is DeliveryStatus.DELIVERED
    assert [attempt.number for attempt in shown.attempts] == [1, 2]


async def test_retry_waits_its_time(engine, outbox, store):
    """A failed attempt is recorded, and the next is due after its delay, with the same id."""
    await ended(store)
    (first,) = await claim(outbox)
    assert await outbox.settle(settlement(first, DeliveryStatus.PENDING))
    assert await claim(outbox) == []
    (shown,) = await listed(outbox)
    assert shown.next_attempt_time - first.claim_time >= MINUTE
    assert shown.settle_time is None
    assert shown.attempts == (settlement(first, DeliveryStatus.PENDING).attempt,)
    make_due(engine)
    (second,) = await claim(outbox)
    assert (second.id, second.number, second.tries) == (first.id, 2, 1)


async def test_many_are_settled_at_once(outbox, store):
    """Concurrent settlements are each made."""
    for n in range(9):
        await ended(store, callback_url=f"https://h{n}.example/")
    claimed = await claim(outbox)
    settlements = [
        settlement(each, DeliveryStatus.PENDING if n % 2 else DeliveryStatus.DELIVERED)
        for n, each in enumerate(claimed)
    ]
    assert await answers(*(outbox.settle(each) for each in settlements)) == [True] * 9
    shown = {each.id: each for each in await listed(outbox)}
    for settled in settlements:
        assert shown[settled.id].status is settled.status
        assert shown[settled.id].attempts == (settled.attempt,)


async def test_owner_sees_only_its_own(outbox, store):
    """A list has the deliveries of one owner, newest first, paged and filtered."""
    owned = []
    for _ in range(5):
        owned.append(await ended(store))
        await asyncio.sleep(factories.TICK_S)  # of two in one tick, either may be the newer one
    await ended(store, owner="mallory")
    everything = await listed(outbox)
    assert [each.operation_id for each in everything] == [each.id for each in reversed(owned)]
    last = everything[1]
    after = Position(create_time=last.create_time, id=last.id)
    assert await listed(outbox, after=after, limit=2) == everything[2:4]
    (one,) = await listed(outbox, operation_id=owned[0].id)
    assert one == everything[-1]
    assert await listed(outbox, statuses=(DeliveryStatus.EXHAUSTED,)) == []
    assert await listed(outbox, statuses=(DeliveryStatus.PENDING,)) == everything


async def test_redelivery_begins_anew(outbox, store):
    """A redelivery is due at once, on a new schedule, and keeps the earlier attempts."""
    await ended(store)
    (claimed,) = await claim(outbox)
    await outbox.settle(settlement(claimed, DeliveryStatus.EXHAUSTED))
    delivery, replayed = await outbox.redeliver(factories.OWNER, claimed.id, "again")
    assert (delivery.status, replayed) == (DeliveryStatus.PENDING, False)
    assert len(delivery.attempts) == 1
    assert (await outbox.redeliver(factories.OWNER, claimed.id, "again"))[1]
    with pytest.raises(IllegalTransition) as refused:
        await outbox.redeliver(factories.OWNER, claimed.id, None)
    assert refused.value.facts["status"] == "PENDING"
    (again,) = await claim(outbox)
    assert (again.id, again.number, again.tries) == (claimed.id, 2, 0)
    await outbox.settle(settlement(again))
    delivery, replayed = await outbox.redeliver(factories.OWNER, claimed.id, "again")
    assert (delivery.status, replayed) == (DeliveryStatus.DELIVERED, True)


async def test_foreign_delivery_is_missing(outbox, store):
    """The redelivery of another owner's delivery fails as for a missing one."""
    await ended(store)
    (claimed,) = await claim(outbox)
    for delivery_id in (claimed.id, "msg_" + "0" * 32):
        with pytest.raises(DeliveryNotFound) as refused:
            await outbox.redeliver("mallory", delivery_id, None)
        assert refused.value.facts == {"delivery_id": delivery_id}


async def test_deleted_operation_leaves_its_unsent_webhook(engine, outbox, store):
    """An unsettled delivery outlives its deleted operation, with the snapshot for its body."""
    operation = await ended(
        store, metadata='{"a":"ü"}', callback_events=(*ENDS, "operation.deleted")
    )
    (before,) = await claim(outbox)
    await store.delete(factories.change(Transition.PURGE, operation.id))
    make_due(engine)
    kept, deleted = sorted(await claim(outbox), key=lambda each: each.revision)
    assert (kept.id, kept.snapshot) == (before.id, before.snapshot)
    assert (deleted.type, deleted.snapshot) == ("operation.deleted", before.snapshot)
    await outbox.settle(settlement(kept))
    assert await outbox.purge_deliveries(MINUTE) == 0
    assert await outbox.purge_deliveries(-MINUTE) == 1
    (remaining,) = await listed(outbox)
    assert remaining.id == deleted.id


async def test_settled_deliveries_go_with_their_operation(outbox, store, stored):
    """The settled deliveries of an operation are removed with it."""
    operation = await ended(store)
    (claimed,) = await claim(outbox)
    await outbox.settle(settlement(claimed))
    await store.delete(factories.change(Transition.PURGE, operation.id))
    assert stored.deliveries(operation.id) == []
    assert await listed(outbox) == []


@pytest.mark.parametrize("status", [Status.PENDING, Status.COMPLETED])
async def test_expiry_is_told_of_what_has_not_ended(outbox, store, stored, status):
    """The expiry of a pending operation has a webhook; that of a terminal one has none."""
    operation = await factories.reach(store, status, callback_events=ENDS, request_id="r")
    await claim(outbox)
    factories.age(stored.engine, operation.id, timedelta(days=30))
    await factories.create(store, request_id="r")  # purges the expired one
    assert stored.events(operation.id)[-1]["actor"] == SWEEPER
    types = [row["type"] for row in stored.deliveries(operation.id)]
    assert ("operation.expired" in types) is (status is Status.PENDING)
    for claimed in await claim(outbox):
        assert claimed.snapshot.status is Status.PENDING


async def test_previous_release_writes_what_is_due(outbox, store, stored):
    """A delivery of the previous release, without the new columns, is due at once."""
    operation = await ended(store, callback_url=None)
    row = {
        "id": "msg_" + "1" * 32,
        "operation_id": operation.id,
        "revision": operation.revision,
        "type": "operation.completed",
        "owner": operation.owner,
        "callback_url": "https://example.com/",
        "create_time": operation.complete_time,
    }
    stored.execute(sa.insert(deliveries), [row])
    (claimed,) = await claim(outbox)
    assert claimed.id == row["id"]
    (shown,) = await listed(outbox)
    assert shown.next_attempt_time >= shown.create_time


FINISHED = 20_000


def plan_of_a_claim(engine):
    """Return the plan of a claim, in a session like that of a dispatcher."""
    explain = "EXPLAIN " if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
    request = dataclasses.replace(CLAIM, busy=["a.example"], on_trial=["b.example"])

    def explaining(_connection, _cursor, statement, parameters, *_):
        return explain + statement, parameters

    session = Session(engine, pinned_plans=True)
    connection = session.connection
    sa.event.listen(engine, "before_cursor_execute", explaining, retval=True)
    result = connection.execute(claim_statement(), claiming_values(request, "token"))
    plan = [str(row) for row in result.cursor.fetchall()]
    sa.event.remove(engine, "before_cursor_execute", explaining)
    session.reset()
    return plan


async def test_claim_costs_the_same_after_many_deliveries(engine, outbox, store):
    """The index of due deliveries serves a claim, however many are settled."""
    operation = await ended(store)
    rows = [
        {
            "id": f"msg_{n:032x}",
            "operation_id": f"op_{n:024x}",
            "revision": 3,
            "type": "operation.completed",
            "owner": factories.OWNER,
            "callback_url": "https://example.com/",
            "create_time": factories.LONG_AGO,
            "status": "DELIVERED",
            "settle_time": factories.LONG_AGO,
        }
        for n in range(FINISHED)
    ]
    with engine.begin() as connection:
        connection.execute(sa.insert(deliveries), rows)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
    text = "\n".join(plan_of_a_claim(engine))
    assert "deliveries_due_idx" in text
    assert "deliveries_pkey" in text or "sqlite_autoindex_deliveries_1" in text
    # Busy receivers are looked up in a table of their names, not compared one by one.
    assert "hashed SubPlan" in text or "LIST SUBQUERY" in text
    assert "Seq Scan on deliveries" not in text
    assert "SCAN deliveries" not in text.replace("SCAN deliveries USING INDEX", "")
    (claimed,) = await claim(outbox)
    assert claimed.operation_id == operation.id
