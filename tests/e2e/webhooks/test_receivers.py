"""Receivers: how their URLs are spelled, and owners that share one of them."""

import time

import pytest
from grpc import StatusCode

from tests.e2e.refusals import refused
from tests.e2e.webhooks.owner import DELIVERED, settled
from tests.machine import slowdown
from tests.receivers import silence

TIMEOUT_S = 1.0
"""Timeout of an attempt of the service."""


@pytest.mark.parametrize(
    "tail",
    ["", "/", "?x=1", "/a%2Fb?c=%22d%22", "/a+b?c+d", "//double//slash", "/a/../b", "/./a",
     "/a%2fb", "/%zz", "/a|b", "/{id}", "/a^b`c", "/<x>", "/a[0]", "/%ff", '/a"b', "/:8080", "/@x",
     "/a%00b", "/a%0d%0aX:1", "/%E2%98%83"],
)  # fmt: skip
def test_url_arrives_as_written(alice, receiver, tail):
    """The target of the request is the URL as the caller wrote it, byte for byte."""
    operation = alice.create_in("CANCELLED", callback_url=receiver.url(tail))
    delivery = settled(alice, operation.id)
    assert delivery.status == DELIVERED
    assert receiver.targets(delivery.id) == {tail if tail.startswith("/") else f"/{tail}"}


@pytest.mark.parametrize("tail", ["/\u00fc", "/?q=\u2603", "/\u202e"])
def test_rest_beyond_ascii_is_refused(alice, receiver, tail):
    """A path or a query beyond ASCII is refused, because it has several encodings."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.create(callback_url=receiver.url(tail))
    assert set(refusal.violations) == {"callback_url"}


@pytest.mark.parametrize("answer", [400, 404, 410, 500])
def test_answers_to_one_owner_hold_up_no_other(any_service, receiver, path, answer):
    """However many answers 404 or 410 one owner gets, another owner's webhooks are sent."""
    mallory, alice = any_service.client("mallory"), any_service.client("alice")
    receiver.answer(path, *[answer] * 60)
    for _ in range(12):
        mallory.create_in("CANCELLED", callback_url=receiver.url(path))
    receiver.wait_for(path, 12)
    operation = alice.create_in("CANCELLED", callback_url=receiver.url(f"{path}/alice"))
    receiver.wait_for(f"{path}/alice")
    assert settled(alice, operation.id).status == DELIVERED


def test_receiver_that_hangs_holds_up_no_other_owner(any_service, receiver, path):
    """While one owner's receivers hang on a host, another owner's webhooks are sent there."""
    mallory, alice = any_service.client("mallory"), any_service.client("alice")
    receiver.answer(path, *[silence] * 200)
    for _ in range(30):
        mallory.create_in("CANCELLED", callback_url=receiver.url(path))
    receiver.wait_for(path, 7)
    begun = time.monotonic()
    alice.create_in("CANCELLED", callback_url=receiver.url(f"{path}/alice"))
    receiver.wait_for(f"{path}/alice")
    assert time.monotonic() - begun < TIMEOUT_S * slowdown()
