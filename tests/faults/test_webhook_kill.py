"""Webhooks of a service that is killed, to a receiver that often fails: none lost, none made up."""

import random
import uuid
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from milepost.gen.milepost.v1 import webhook_service_pb2 as pb
from milepost.webhooks.masterkeys import new_key
from tests.e2e.service import Service
from tests.inbox import Inbox
from tests.receivers import reply, reset, silence
from tests.waiting import eventually

EVENTS = 200
KILLS = 5
FAILING = 0.3
SCHEDULE = ",".join(["0", *["0.2"] * 30])
PATIENCE_SECONDS = 120.0


@pytest.fixture
def receiver():
    """A receiver."""
    with Inbox() as receiver:
        yield receiver


@pytest.fixture(params=["sqlite", "postgresql"])
def service(request, tmp_path, receiver):
    """A service with a short timeout, so that what a kill left behind is due again soon."""
    settings: dict[str, Any] = {
        "webhook_allow_http": "true",
        "webhook_allowed_networks": "127.0.0.1/32",
        "webhook_allowed_ports": str(receiver.port),
        "webhook_schedule_seconds": SCHEDULE,
        "webhook_timeout_seconds": "0.5",
        "webhook_concurrency_per_host": "32",
        "webhook_keys": new_key(),
    }
    url = f"sqlite:///{tmp_path / 'milepost.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    with Service(url, tmp_path, **settings) as service:
        yield service


EARLY_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot a hundred bytes"
"""The answer breaks off in the middle."""


def misbehaviours(dice):
    """What a receiver answers that fails now and then."""
    for _ in range(20 * EVENTS):
        if dice.random() > FAILING:
            yield 200
            continue
        slow_down = reply(429, {"Retry-After": "1"})
        yield dice.choice([500, 503, slow_down, reset, silence, EARLY_CLOSE])


@pytest.mark.timeout(240)
def test_nothing_is_lost_or_made_up(service, receiver):
    """Killed again and again, the service delivers every event, at least once, under one id.

    What is delivered was committed, and every signature is good (B107, B206, B216).
    """
    dice = random.Random(7)  # noqa: S311 - any spread will do
    path = f"/{uuid.uuid4().hex}"
    receiver.answer(path, *misbehaviours(dice))
    alice = service.client("alice")
    secret = alice.call("GetSigningSecret").current.value
    url = receiver.url(path)
    ids = []
    for round_ in range(KILLS):
        with ThreadPoolExecutor(8) as threads:
            futures = [
                threads.submit(
                    alice.create_in, dice.choice(["COMPLETED", "CANCELLED"]), callback_url=url
                )
                for _ in range(EVENTS // KILLS)
            ]
            ids += [future.result().id for future in futures]
        receiver.wait_for(path, round_ * 10 + 5)
        service.kill()
        service.start()

    def pending():
        statuses = [pb.DELIVERY_STATUS_PENDING]
        return alice.call("ListDeliveries", statuses=statuses).deliveries

    eventually(lambda: not pending(), within=PATIENCE_SECONDS, what="everything is settled")
    webhook_ids = defaultdict(set)
    for hook in receiver.got(path):
        data = hook.verify(secret)["data"]
        webhook_ids[data["operation_id"]].add(hook.id)
        assert alice.get(data["operation_id"]).revision == data["revision"]
    assert sorted(webhook_ids) == sorted(ids)
    assert {len(each) for each in webhook_ids.values()} == {1}
    everything = []
    token = ""
    while True:
        page = alice.call("ListDeliveries", page_size=100, page_token=token)
        everything += page.deliveries
        if not (token := page.next_page_token):
            break
    assert {delivery.status for delivery in everything} == {pb.DELIVERY_STATUS_DELIVERED}
    assert len(everything) == len(ids)
