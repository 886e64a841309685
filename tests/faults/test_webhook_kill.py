"""Webhooks of a killed service to a failing receiver: none is lost, none is made up."""

import random
import threading
import time
import uuid
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from milepost.domain.transitions import TERMINAL
from milepost.gen.milepost.v1 import webhook_service_pb2 as pb
from milepost.webhooks.master_keys import new_key
from tests.e2e.service import Service
from tests.faults.history import histories
from tests.faults.test_kill import GONE
from tests.inbox import Inbox
from tests.receivers import reply, reset, silence
from tests.waiting import eventually

CALLERS = 8
FAILING = 0.3
SCHEDULE = ",".join(["0", *["0.2"] * 30])


@pytest.fixture
def receiver():
    """A receiver."""
    with Inbox() as receiver:
        yield receiver


@pytest.fixture(params=["sqlite", "postgresql"])
def service(request, tmp_path, receiver):
    """A service with a short timeout, so that deliveries cut off by a kill are due again soon."""
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
"""An answer that breaks off in the middle."""


def misbehaviours(dice, count):
    """Return answers that fail now and then."""
    for _ in range(count):
        if dice.random() > FAILING:
            yield 200
            continue
        slow_down = reply(429, {"Retry-After": "1"})
        yield dice.choice([500, 503, slow_down, reset, silence, EARLY_CLOSE])


class Callers:
    """Callers that end operations all the time, while the service is killed and restarted."""

    def __init__(self, client, url, count):
        self.acknowledged: list[str] = []
        """The operations whose end was acknowledged to the caller."""
        self._client = client
        self._url = url
        self._count = count
        self._stopped = threading.Event()

    def __enter__(self):
        """Start the callers."""
        self._threads = ThreadPoolExecutor(CALLERS)
        self._running = [self._threads.submit(self._go_on) for _ in range(CALLERS)]
        return self

    def __exit__(self, kind, *_error):
        """Wait until they have finished, or given up."""
        if kind is not None:
            self._stopped.set()
        self._threads.shutdown()
        if kind is None:
            for thread in self._running:
                thread.result()

    def until(self, count):
        """Wait until so many ends are acknowledged."""
        eventually(
            lambda: len(self.acknowledged) >= count, within=120, what=f"{count} operations ended"
        )

    def _go_on(self):
        while len(self.acknowledged) < self._count and not self._stopped.is_set():
            status = random.choice(["COMPLETED", "CANCELLED", "FAILED"])  # noqa: S311
            try:
                operation = self._client.create_in(status, callback_url=self._url)
            except grpc.RpcError as error:
                if error.code() not in GONE:
                    raise
                time.sleep(0.05)
            else:
                self.acknowledged.append(operation.id)


def all_deliveries(client):
    """Return every delivery of a caller, page by page."""
    found, token = [], ""
    while True:
        page = client.call("ListDeliveries", page_size=100, page_token=token)
        found += page.deliveries
        if not (token := page.next_page_token):
            return found


@pytest.mark.parametrize(
    ("count", "kills"),
    [
        pytest.param(200, 5, marks=pytest.mark.timeout(600)),
        pytest.param(2_000, 10, marks=[pytest.mark.faults, pytest.mark.timeout(600)]),
    ],
)
def test_nothing_is_lost_or_made_up(service, receiver, count, kills):
    """A service killed during work sends a webhook of every end, at least once, under one id.

    Every end sent was committed, acknowledged or not, and every signature is valid.
    """
    dice = random.Random(7)  # noqa: S311 - any spread will do
    path = f"/{uuid.uuid4().hex}"
    receiver.answer(path, *misbehaviours(dice, 20 * count))
    alice = service.client("alice")
    secret = alice.call("RotateSigningSecret").current.value
    with Callers(alice, receiver.url(path), count) as callers:
        for kill in range(1, kills + 1):
            callers.until(count * kill // (kills + 1))
            service.kill()
            service.start()

    def pending():
        statuses = [pb.DELIVERY_STATUS_PENDING]
        return alice.call("ListDeliveries", statuses=statuses).deliveries

    eventually(lambda: not pending(), within=240, what="everything is settled")
    ends = {
        id_: (history.row["status"], history.row["revision"])
        for id_, history in histories(service.database_url).items()
        if history.row["status"] in TERMINAL
    }
    assert set(callers.acknowledged) <= ends.keys()
    webhook_ids = defaultdict(set)
    hooks = receiver.got(path)
    for hook in hooks:
        data = hook.verify(secret)["data"]
        webhook_ids[data["operation_id"]].add(hook.id)
        assert (data["status"], data["revision"]) == ends[data["operation_id"]]
    assert webhook_ids.keys() == ends.keys()
    assert {len(each) for each in webhook_ids.values()} == {1}
    everything = all_deliveries(alice)
    assert {delivery.status for delivery in everything} == {pb.DELIVERY_STATUS_DELIVERED}
    assert sorted(delivery.operation_id for delivery in everything) == sorted(ends)
    recorded = sum(len(delivery.attempts) for delivery in everything)
    assert len(hooks) > recorded, "no kill hit an attempt"
    print(  # noqa: T201 - to be read with -s
        f"{len(ends)} ends, {len(ends) - len(callers.acknowledged)} of them not acknowledged,"
        f" sent in {len(hooks)} attempts, of which kills hit {len(hooks) - recorded}"
    )
