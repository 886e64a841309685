"""Webhooks of an owner: its secrets, its deliveries, a test."""

import base64
import re
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa
from grpc import StatusCode
from standardwebhooks import Webhook

from milepost.storage.tables import signing_secrets
from tests.e2e.refusals import refused
from tests.e2e.webhooks.owner import DELIVERED, new_secret_of, secret_of, settled
from tests.receivers import reply

MISSING = "msg_" + "0" * 32


def secrets_in_store(any_service, client):
    """The number of secrets that the service stores for a client."""
    with any_service.engine.connect() as connection:
        query = sa.select(sa.func.count()).select_from(signing_secrets)
        return connection.scalar(query.where(signing_secrets.c.owner == client.subject))


def test_reading_creates_no_secret(alice, any_service, receiver, path):
    """An owner without a callback URL has no secret; neither a read nor a test creates one."""
    alice.create()
    for _ in range(2):
        with refused(StatusCode.NOT_FOUND, "SIGNING_SECRET_NOT_FOUND"):
            alice.call("GetSigningSecret")
    with refused(StatusCode.NOT_FOUND, "SIGNING_SECRET_NOT_FOUND"):
        alice.call("SendTestWebhook", callback_url=receiver.url(path))
    assert not receiver.got(path)
    assert secrets_in_store(any_service, alice) == 0


def test_refused_callback_url_creates_no_secret(alice, any_service):
    """A create whose callback URL is refused leaves its owner without a secret."""
    with refused(StatusCode.INVALID_ARGUMENT):
        alice.create(callback_url="https://10.0.0.1/")
    assert secrets_in_store(any_service, alice) == 0


def test_first_callback_url_creates_the_secret(alice, any_service, receiver, path):
    """Of many first creates at once one makes the secret, which reads return from then on."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: alice.create(callback_url=receiver.url(path)), range(8)))
    first = alice.call("GetSigningSecret")
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", first.current.value)
    assert not first.HasField("previous")
    assert alice.call("GetSigningSecret") == first
    assert secrets_in_store(any_service, alice) == 1


def test_first_rotation_creates_the_secret(alice):
    """A rotation makes the secret of an owner that has none; it replaces nothing."""
    rotated = alice.call("RotateSigningSecret")
    assert not rotated.HasField("previous")
    assert secret_of(alice) == rotated.current.value


def test_both_secrets_sign_after_a_rotation(alice, receiver, path):
    """For 24 h after a rotation each webhook carries a signature of both secrets."""
    old = new_secret_of(alice)
    rotated = alice.call("RotateSigningSecret", request_id="r1")
    assert rotated.current.value != old == rotated.previous.value
    assert not rotated.replayed
    lasts = rotated.previous.expire_time.seconds - rotated.current.create_time.seconds
    assert abs(lasts - 24 * 3600) <= 1
    assert alice.call("RotateSigningSecret", request_id="r1").replayed
    assert secret_of(alice) == rotated.current.value
    alice.create_in("COMPLETED", callback_url=receiver.url(path))
    (hook,) = receiver.wait_for(path)
    assert len(hook.headers["webhook-signature"].split(" ")) == 2
    for secret in (old, rotated.current.value):
        Webhook(secret).verify(hook.body, dict(hook.headers))
    third = alice.call("RotateSigningSecret")
    assert third.previous.value == rotated.current.value


def test_secrets_are_stored_encrypted_and_never_logged(alice, any_service, receiver, path):
    """Neither the database nor the log has a secret, or the query of a callback URL."""
    secret = new_secret_of(alice)
    receiver.answer(path, 500)
    alice.create_in("COMPLETED", callback_url=receiver.url(path + "?token=hush"))
    receiver.wait_for(path, 2)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    with any_service.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT sealed FROM signing_secrets").fetchall()
    assert rows
    assert not any(key in bytes(sealed) for (sealed,) in rows)
    log = any_service.log()
    assert secret not in log
    assert "hush" not in log


def test_foreign_delivery_is_missing(alice, any_service, receiver, path):
    """A foreign delivery and a missing one are refused with the same bytes."""
    operation = alice.create_in("COMPLETED", callback_url=receiver.url(path))
    delivery = settled(alice, operation.id)
    mallory = any_service.client("mallory")
    assert not mallory.call("ListDeliveries", operation_id=operation.id).deliveries
    refusals = []
    for delivery_id in (delivery.id, MISSING):
        with refused(StatusCode.NOT_FOUND, "DELIVERY_NOT_FOUND") as refusal:
            mallory.call("RedeliverWebhook", delivery_id=delivery_id)
        refusals.append(refusal.status.SerializeToString().replace(delivery_id.encode(), b"ID"))
    assert refusals[0] == refusals[1]


def test_deliveries_come_page_by_page(alice, receiver, path):
    """A list continues after its page; a token is valid for this list and caller only."""
    url = receiver.url(path + "?token=hush")
    *_, operation = [alice.create_in("COMPLETED", callback_url=url) for _ in range(3)]
    settled(alice, operation.id)
    first = alice.call("ListDeliveries", page_size=2)
    rest = alice.call("ListDeliveries", page_size=2, page_token=first.next_page_token)
    found = [*first.deliveries, *rest.deliveries]
    assert len({delivery.id for delivery in found}) == 3
    assert found[0].operation_id == operation.id
    assert found[0].callback_url == receiver.url(path)
    assert not rest.next_page_token
    with refused(StatusCode.INVALID_ARGUMENT) as refusal:
        alice.call("ListDeliveries", page_token=first.next_page_token, statuses=[DELIVERED])
    assert set(refusal.violations) == {"page_token"}


def test_bad_requests_name_their_fields(alice):
    """A malformed request is refused with every wrong field."""
    with refused(StatusCode.INVALID_ARGUMENT) as refusal:
        alice.call("ListDeliveries", statuses=[0, 9], page_size=-1, operation_id="x")
    assert set(refusal.violations) == {"statuses[0]", "statuses[1]", "page_size", "operation_id"}
    with refused(StatusCode.INVALID_ARGUMENT) as refusal:
        alice.call("RedeliverWebhook", delivery_id="msg_x", request_id="")
    assert set(refusal.violations) == {"delivery_id", "request_id"}


def test_pending_delivery_is_not_redelivered(alice, receiver, path):
    """A redelivery of a pending delivery is refused."""
    receiver.answer(path, reply(429, {"Retry-After": "60"}))
    operation = alice.create_in("COMPLETED", callback_url=receiver.url(path))
    receiver.wait_for(path)
    (delivery,) = alice.call("ListDeliveries", operation_id=operation.id).deliveries
    with refused(StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION") as refusal:
        alice.call("RedeliverWebhook", delivery_id=delivery.id)
    assert refusal.facts["status"] == "PENDING"


def test_test_webhook(alice, receiver, path):
    """A test webhook is sent at once and signed, returns its outcome, and is not listed."""
    secret = new_secret_of(alice)
    receiver.answer(path, 204, 500)
    good = alice.call("SendTestWebhook", callback_url=receiver.url(path))
    bad = alice.call("SendTestWebhook", callback_url=receiver.url(path))
    first, second = receiver.got(path)
    assert first.verify(secret)["type"] == "webhook.test"
    assert (good.webhook_id, good.attempt.status_code) == (first.id, 204)
    assert not good.attempt.HasField("error")
    assert (bad.webhook_id, bad.attempt.error) == (second.id, "answered 500")
    assert not alice.call("ListDeliveries").deliveries
    with refused(StatusCode.INVALID_ARGUMENT) as refusal:
        alice.call("SendTestWebhook", callback_url="https://10.0.0.1/")
    assert set(refusal.violations) == {"callback_url"}
