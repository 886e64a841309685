"""The dispatcher over real stores: concurrency limits, order, circuit breaker and leases."""

import asyncio
import json
from collections import Counter
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from milepost.domain.operation import Status
from milepost.webhooks.circuit_breaker import CircuitBreaker
from milepost.webhooks.concurrency import ConcurrencyLimits
from milepost.webhooks.sender import Answer, Failure
from tests import factories
from tests.dispatching import WebhookDelivery
from tests.outbox import insert_due
from tests.waiting import until

HOSTS = [f"https://h{n}.example/" for n in range(3)]
LIMITS = ConcurrencyLimits(total=5, per_host=2, timeout=timedelta(seconds=1))
TIMEOUT_S = 0.5
OWNERS = ("alice", "mallory")


class Poster:
    """Stub of the sender: counts the posts, and answers after `takes` seconds."""

    def __init__(self, status=204, takes=0.02):
        self.status = status
        self.error = None
        self.takes = takes
        self.hanging: set[str] = set()
        self.posts: Counter[str] = Counter()
        self.max_running: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self._running: Counter[str] = Counter()

    async def post(self, url, *, owner, headers, body):  # noqa: ARG002 - the signature
        """Answer after a while, or time out."""
        self.bodies.append(json.loads(body))
        for key in (url.host, "all"):
            self.posts[key] += 1
            self._running[key] += 1
            self.max_running[key] = max(self.max_running[key], self._running[key])
        hangs = bool({url.host, owner} & self.hanging)
        takes = TIMEOUT_S if hangs else self.takes
        await asyncio.sleep(takes)
        self._running.subtract((url.host, "all"))
        error = Failure.TIMEOUT if hangs else self.error
        return Answer(
            status=None if error else self.status,
            error=error,
            duration=timedelta(seconds=takes),
            retry_after=None,
            refused=False,
        )


class Reluctant(Poster):
    """Stub of the sender: refuses the first post of a start."""

    async def post(self, url, **request):
        """Answer after a while."""
        posted_before = any(body["type"] == "operation.started" for body in self.bodies)
        start = json.loads(request["body"])["type"] == "operation.started"
        self.status = 500 if start and not posted_before else 204
        return await super().post(url, **request)


def due(engine, count, urls=HOSTS, **more):
    """Insert `count` due deliveries."""
    with engine.begin() as connection:
        insert_due(connection, count, urls, **more)


async def test_limits_hold_per_host_and_in_total(engine, stores):
    """Neither the limit of a host nor the total limit is exceeded."""
    due(engine, 45, owners=OWNERS)
    poster = Poster(takes=0.2)
    async with WebhookDelivery(engine, stores, poster, limits=LIMITS) as delivery:
        await until(lambda: poster.posts["all"] == 45, patience=20)
    assert delivery.counts() == {"DELIVERED": 45}
    assert poster.posts == {"all": 45, **{f"h{n}.example": 15 for n in range(3)}}
    # The limits are used, and not just kept.
    assert poster.max_running["all"] == LIMITS.total
    assert max(poster.max_running[f"h{n}.example"] for n in range(3)) == LIMITS.per_host


async def test_revision_orders_the_events_of_an_operation(engine, stores, store):
    """An event does not wait for an earlier one that fails; each has its revision.

    Sorted by revision the events are in order, and each shows the status after it.
    """
    events = ("operation.started", "operation.completed")
    url = HOSTS[0]
    await factories.reach(store, Status.COMPLETED, callback_url=url, callback_events=events)
    poster = Reluctant()
    limits = ConcurrencyLimits(total=1, per_host=1)
    async with WebhookDelivery(engine, stores, poster, limits=limits, attempts=3):
        await until(lambda: len(poster.bodies) == 3, patience=20)
    posted = [(each["type"].partition(".")[2], each["data"]["revision"]) for each in poster.bodies]
    assert sorted(posted) == [("completed", 3), ("started", 2), ("started", 2)]
    by_revision = sorted(poster.bodies, key=lambda each: each["data"]["revision"])
    statuses = [each["data"]["status"] for each in by_revision]
    assert statuses == ["PROCESSING", "PROCESSING", "COMPLETED"]


async def test_breaker_delays_and_drops_nothing(engine, stores):
    """An open circuit delays the deliveries of a host, and uses up no attempt."""
    due(engine, 20, HOSTS[:1])
    now = [0.0]
    breaker = CircuitBreaker(lambda: now[0], failure_threshold=3, open_s=60)
    poster = Poster()
    poster.error = Failure.NOT_CONNECTED
    async with WebhookDelivery(
        engine, stores, poster, limits=LIMITS, breaker=breaker, attempts=50
    ) as delivery:
        await until(lambda: bool(breaker.paused()))
        await asyncio.sleep(0.3)
        before = poster.posts["all"]
        await asyncio.sleep(0.3)
        assert poster.posts["all"] == before
        assert delivery.counts() == {"PENDING": 20}
        poster.error = None
        now[0] = 61.0
        delivery.dispatcher.wake()
        await until(lambda: poster.posts["all"] == before + 20, patience=20)
    assert delivery.counts() == {"DELIVERED": 20}


async def test_answers_open_no_circuit(engine, stores):
    """However many deliveries of one owner are answered 404 or 410, others go to the host."""
    due(engine, 30, HOSTS[:1], owners=["mallory"])
    poster = Poster(status=404)
    async with WebhookDelivery(engine, stores, poster, limits=LIMITS):
        await until(lambda: poster.posts["all"] == 30, patience=20)
        due(engine, 1, HOSTS[:1], owners=["alice"], part=1)
        await until(lambda: poster.posts["all"] == 31, patience=5)


async def test_owner_that_hangs_holds_up_no_neighbour(engine, stores):
    """While receivers of one owner hang on a host, another owner's deliveries go there.

    Those that hang would take 100 s, four at a time.
    """
    due(engine, 800, HOSTS[:1], owners=["mallory"])
    due(engine, 20, HOSTS[:1], owners=["alice"], part=1)
    poster = Poster()
    poster.hanging = {"mallory"}
    limits = ConcurrencyLimits(total=20, per_host=4, timeout=timedelta(seconds=TIMEOUT_S))
    async with WebhookDelivery(engine, stores, poster, limits=limits, attempts=9) as delivery:
        await until(lambda: delivery.counts().get("DELIVERED") == 20, patience=20 * TIMEOUT_S)
    assert poster.max_running["h0.example"] <= limits.per_host


async def test_receiver_on_trial_gets_one_attempt_at_a_time(engine, stores):
    """After a failure a receiver gets one attempt at a time, and all such receivers a part."""
    urls = [f"https://h{n}.example/" for n in range(12)]
    due(engine, 240, urls)
    poster = Poster()
    poster.hanging = {f"h{n}.example" for n in range(12)}
    limits = ConcurrencyLimits(total=16, per_host=4, timeout=timedelta(seconds=TIMEOUT_S))
    breaker = CircuitBreaker(asyncio.get_running_loop().time, failure_threshold=1_000)
    async with WebhookDelivery(
        engine, stores, poster, limits=limits, breaker=breaker, attempts=9
    ) as delivery:
        await until(lambda: len(breaker.on_trial()) == 12, patience=20)
        await asyncio.sleep(2 * TIMEOUT_S)  # what was claimed before has ended
        poster.max_running.clear()
        await asyncio.sleep(3 * TIMEOUT_S)
        assert 0 < poster.max_running["all"] <= limits.on_trial
        assert all(poster.max_running[f"h{n}.example"] <= 1 for n in range(12))
        poster.hanging = set()
        await until(lambda: delivery.counts() == {"DELIVERED": 240}, patience=20)


async def test_what_waited_too_long_is_left_to_its_lease(engine, stores):
    """An attempt that would outlive its lease is not made: the delivery is due again later."""
    limits = ConcurrencyLimits(total=1, per_host=1, timeout=timedelta(seconds=-0.99))
    due(engine, 4)
    poster = Poster(takes=0.3)
    async with WebhookDelivery(engine, stores, poster, limits=limits) as delivery:
        await asyncio.sleep(0.5)
        delivery.dispatcher.finish()
    delivered = delivery.counts()["DELIVERED"]
    assert delivery.counts()["PENDING"] == 4 - delivered > 0
    assert poster.posts["all"] == delivered
    with engine.connect() as connection:
        tries = connection.scalar(sa.text("SELECT max(tries) FROM deliveries"))
    assert tries == 0
