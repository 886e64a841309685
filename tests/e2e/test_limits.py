"""The rate limits and quotas of the product over the wire, by default and configured."""

import json
import time
from collections.abc import Iterator

import pytest
from google.rpc import error_details_pb2
from grpc import StatusCode

from tests.contract.stored import Stored
from tests.e2e.client import Client
from tests.e2e.refusals import refused
from tests.e2e.service import Service
from tests.waiting import eventually

MORE_THAN_ENOUGH = 1_000


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the default limits."""
    folder = tmp_path_factory.mktemp("limited")
    with Service(f"sqlite:///{folder / 'milepost.db'}", folder, limited=True) as service:
        yield service


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with configured limits."""
    folder = tmp_path_factory.mktemp("tuned")
    special = {"vip": {"creates": 300, "active": 7}}
    with Service(
        f"sqlite:///{folder / 'milepost.db'}",
        folder,
        limited=True,
        creates_per_minute="120",
        active_operations_max="3",
        auth_failures_per_minute="5",
        progress_interval_seconds="0.5",
        principal_limits=json.dumps(special),
    ) as service:
        yield service


def finish(client: Client, operation_id: str) -> None:
    """End the operation."""
    client.transition("CancelOperation", operation_id)


def test_the_101st_create_of_a_minute(limited):
    """100 creates are served, the 101st gets RESOURCE_EXHAUSTED with RetryInfo."""
    alice, bob = limited.client("alice"), limited.client("bob")
    begun = time.monotonic()
    served = 0
    with refused(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED") as refusal:
        for _ in range(MORE_THAN_ENOUGH):
            finish(alice, alice.create().id)
            served += 1
    back = int((time.monotonic() - begun) / 0.6) + 1
    assert 100 <= served <= 100 + back
    assert 0 < refusal.retry_after <= 0.601
    assert refusal.facts["limit"] == "creates"
    assert refusal.message == "too many creates: at most 100 in 60 s"
    bob.create()
    time.sleep(refusal.retry_after)  # exactly as long as the answer says
    alice.create()
    assert limited.metric("milepost_limited_total", limit="creates") >= 1
    assert alice.subject not in limited.probe("/metrics")[1]


def test_the_31st_list_of_a_minute(limited):
    """30 lists are served in 60 s, and no more."""
    alice = limited.client("alice")
    served = 0
    with refused(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED") as refusal:
        for _ in range(MORE_THAN_ENOUGH):
            alice.call("ListOperations")
            served += 1
    assert served in {30, 31}
    assert refusal.facts == {"limit": "lists", "count": "30", "period_seconds": "60"}


def test_another_key_is_no_way_around(limited):
    """The limit is that of the subject, for all its keys together."""
    alice = limited.client("alice")
    with refused(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"):
        for _ in range(MORE_THAN_ENOUGH):
            alice.call("ListOperations")
    again = Client(limited.channel, alice.subject, alice.roles, limited.api_key(alice.subject))
    with refused(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"):
        for _ in range(3):
            again.call("ListOperations")


def test_the_11th_active_operation(limited):
    """The 11th active operation gets RESOURCE_EXHAUSTED with QuotaFailure."""
    alice = limited.client("alice")
    first, *_ = [alice.create(request_id=f"r-{n}") for n in range(10)]
    with refused(StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED") as refusal:
        alice.create(request_id="r-10")
    assert refusal.facts == {"active": "10", "quota": "10"}
    (violation,) = refusal.detail(error_details_pb2.QuotaFailure).violations
    assert violation.subject == "active_operations"
    assert violation.description == refusal.message == "10 operations are active, at most 10 may be"
    assert alice.create(request_id="r-0").id == first.id
    finish(alice, first.id)
    alice.create(request_id="r-10")
    assert limited.metric("milepost_limited_total", limit="active_operations") >= 1


def test_limits_can_be_chosen(tuned):
    """Both limits follow their settings, and one principal can have its own."""
    alice = tuned.client("alice")
    for _ in range(3):
        alice.create()
    with refused(StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED") as refusal:
        alice.create()
    assert refusal.facts["quota"] == "3"
    vip = Client(tuned.channel, "vip", frozenset({"CALLER"}), tuned.api_key("vip"))
    for _ in range(7):
        vip.create()
    with refused(StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"):
        vip.create()
    assert Stored(tuned.engine).active("vip") == 7


def test_progress_interval(tuned):
    """Progress reports on one operation above the rate get RESOURCE_EXHAUSTED with RetryInfo."""
    alice = tuned.client("alice")
    one, other = alice.create(), alice.create()
    alice.transition("UpdateProgress", one.id, progress=0.1)
    with refused(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED") as refusal:
        alice.transition("UpdateProgress", one.id, progress=0.2)
    assert 0 < refusal.retry_after <= 0.5
    alice.transition("UpdateProgress", other.id, progress=0.1)
    time.sleep(refusal.retry_after)  # exactly as long as the answer says
    assert alice.transition("UpdateProgress", one.id, progress=0.2).progress == 0.2
    alice.transition("CompleteOperation", one.id)


def test_bad_credentials_are_limited(tuned):
    """After too many bad keys an address is limited, and its valid keys still work."""
    alice = tuned.client("alice")
    alice.call("ListOperations")
    stranger = Client(tuned.channel, "x", frozenset(), "no key")
    with refused(StatusCode.UNAUTHENTICATED):
        stranger.call("ListOperations")

    def is_limited() -> bool:
        try:
            with refused(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"):
                stranger.call("ListOperations")
        except AssertionError:
            return False
        return True

    eventually(is_limited, within=10, what="limited")
    alice.call("ListOperations")
    assert tuned.metric("milepost_limited_total", limit="failed_authentications") >= 1
