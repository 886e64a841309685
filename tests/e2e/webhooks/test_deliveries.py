"""Webhooks, from the transition of an operation to a receiver on the loopback."""

import base64
import re
from datetime import datetime
from typing import Any

import pytest
from google.protobuf import any_pb2, duration_pb2, struct_pb2, wrappers_pb2
from grpc import StatusCode

from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.client import TERMINAL_TRANSITIONS
from tests.e2e.refusals import refused
from tests.e2e.rpcs import BROKEN
from tests.e2e.webhooks.owner import DELIVERED, EXHAUSTED, STOPPED, secret_of, settled
from tests.machine import slowdown
from tests.receivers import reply, reset, silence

TRIES = 4


@pytest.mark.parametrize("status", TERMINAL_TRANSITIONS)
def test_end_is_sent(alice, receiver, path, status):
    """Every end is sent once: a signed POST with id, status, result, errors and time."""
    operation = alice.create_in(
        status, callback_url=receiver.url(path + "?token=1"), metadata={"a": 1}, version="2"
    )
    (hook,) = receiver.wait_for(path)
    assert hook.verify(secret_of(alice)) is not None
    assert hook.headers["X-Operation-Id"] == operation.id
    assert hook.headers["User-Agent"] == "Milepost-Webhook/1"
    assert hook.headers["Content-Type"] == "application/json"
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", hook.headers["traceparent"])
    body = hook.json
    assert body["type"] == f"operation.{status.lower()}"
    data = body["data"]
    end = "cancel_time" if status == "CANCELLED" else "complete_time"
    assert datetime.fromisoformat(data.pop(end)) >= datetime.fromisoformat(data.pop("create_time"))
    failed = status == "FAILED"
    error = {"code": BROKEN.code, "message": BROKEN.message, "source": None, "details": None}
    assert data == {
        "operation_id": operation.id,
        "function": "video.transcode",
        "version": "2",
        "status": status,
        "revision": operation.revision,
        "result": None,
        "errors": [error] if failed else [],
        "original_request_id": None,
        "metadata": {"a": 1},
    }
    assert settled(alice, operation.id).status == DELIVERED
    assert len(receiver.got(path)) == 1


def test_changes_before_the_end_are_sent_if_asked_for(alice, receiver, path):
    """Retries, releases and requests to cancel are sent with the status after them."""
    wanted = ["operation.retrying", "operation.released", "operation.cancel_requested"]
    operation = alice.create_in(
        "PROCESSING", callback_url=receiver.url(path), callback_events=wanted
    )
    failed = {"retryable": True, "retry_delay": duration_pb2.Duration(), "errors": [BROKEN]}
    for method, fields in (
        ("FailOperation", failed),
        ("StartOperation", {}),
        ("ReleaseOperation", {}),
        ("StartOperation", {}),
        ("CancelOperation", {"grace": duration_pb2.Duration(seconds=60)}),
        ("AcknowledgeCancellation", {}),
    ):
        alice.transition(method, operation.id, **fields)
    hooks = sorted(receiver.wait_for(path, 3), key=lambda hook: hook.json["data"]["revision"])
    assert [(hook.json["type"], hook.json["data"]["status"]) for hook in hooks] == [
        ("operation.retrying", "PENDING"),
        ("operation.released", "PENDING"),
        ("operation.cancel_requested", "PROCESSING"),
    ]
    assert not any("errors" in hook.json["data"] for hook in hooks)


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        (struct_pb2.Value(number_value=3), 3),
        (struct_pb2.Value(null_value=struct_pb2.NULL_VALUE), None),
        (struct_pb2.Struct(fields={"a": struct_pb2.Value(string_value="ü")}), {"a": "ü"}),
        (
            wrappers_pb2.Int32Value(value=7),
            {
                "@type": "type.googleapis.com/google.protobuf.Int32Value",
                "value": base64.b64encode(b"\x08\x07").decode(),
            },
        ),
    ],
)
def test_result_travels_as_json(alice, receiver, path, message, sent):
    """A JSON result is sent as JSON, any other one by its type and its encoding."""
    result = any_pb2.Any()
    result.Pack(message)
    operation = alice.create_in("PROCESSING", callback_url=receiver.url(path))
    alice.transition("CompleteOperation", operation.id, result=result)
    (hook,) = receiver.wait_for(path)
    assert hook.json["data"]["result"] == sent


def test_deepest_content_travels_as_json(alice, receiver, path):
    """Metadata and error details of 20 levels are sent as they were given."""
    levels: dict[str, Any] = {"k": "x"}
    for _ in range(19):
        levels = {"k": levels}
    deepest = struct_pb2.Struct()
    deepest.update(levels)
    operation = alice.create(callback_url=receiver.url(path), metadata=deepest)
    failure = pb.OperationError(code="DEEP", message="down there", details=deepest)
    alice.transition("FailOperation", operation.id, errors=[failure])
    (hook,) = receiver.wait_for(path)
    data = hook.json["data"]
    assert data["metadata"] == data["errors"][0]["details"] == levels


def test_delivery_is_logged_with_its_attempt(alice, any_service, receiver, path):
    """A delivery answered with 2xx is not sent again, and is logged with its attempt."""
    receiver.answer(path, 500)
    operation = alice.create_in("COMPLETED", callback_url=receiver.url(path))
    delivery = settled(alice, operation.id)
    line = any_service.logged(event="webhook delivered", operation_id=operation.id)
    assert (line["level"], line["attempt"], line["delivery_id"]) == ("info", 2, delivery.id)


def test_failure_is_tried_again(alice, receiver, path):
    """After a 500 the second attempt has the same id and its own timestamp."""
    receiver.answer(path, 500)
    operation = alice.create_in("COMPLETED", callback_url=receiver.url(path))
    delivery = settled(alice, operation.id)
    first, second = receiver.got(path)
    assert first.id == second.id == delivery.id
    assert delivery.status == DELIVERED
    assert [attempt.number for attempt in delivery.attempts] == [1, 2]
    assert [attempt.status_code for attempt in delivery.attempts] == [500, 200]
    assert delivery.attempts[0].error == "answered 500"
    assert not delivery.attempts[1].HasField("error")
    for hook, attempt in zip((first, second), delivery.attempts, strict=True):
        assert int(hook.headers["webhook-timestamp"]) == attempt.start_time.seconds
        hook.verify(secret_of(alice))


def test_exhausted_delivery_can_be_sent_again(alice, any_service, receiver, path):
    """After its last attempt a delivery is exhausted, logged, listed, and can be redelivered.

    The operation does not change.
    """
    receiver.answer(path, *[503] * TRIES)
    operation = alice.create_in("COMPLETED", callback_url=receiver.url(path))
    delivery = settled(alice, operation.id)
    assert delivery.status == EXHAUSTED
    assert len(delivery.attempts) == TRIES
    assert delivery.HasField("settle_time")
    assert not delivery.HasField("next_attempt_time")
    line = any_service.logged(event="webhook exhausted", operation_id=operation.id)
    assert (line["level"], line["attempt"], line["tries"]) == ("warning", TRIES, TRIES)
    assert alice.get(operation.id) == operation
    request = {"delivery_id": delivery.id, "request_id": "again"}
    queued = alice.call("RedeliverWebhook", **request)
    assert (queued.delivery.id, queued.replayed) == (delivery.id, False)
    again = settled(alice, operation.id)
    assert again.status == DELIVERED
    assert len(again.attempts) == TRIES + 1
    assert {hook.id for hook in receiver.got(path)} == {delivery.id}
    assert alice.call("RedeliverWebhook", **request).replayed
    assert len(receiver.got(path)) == TRIES + 1


@pytest.mark.parametrize(("behaviour", "error"), [(reset, "connection"), (silence, "timed out")])
def test_no_answer_is_a_failed_attempt(alice, receiver, path, behaviour, error):
    """A broken connection and a timeout count as failed attempts."""
    receiver.answer(path, behaviour)
    operation = alice.create_in("COMPLETED", callback_url=receiver.url(path))
    delivery = settled(alice, operation.id)
    failed, succeeded = delivery.attempts
    assert error in failed.error
    assert not failed.HasField("status_code")
    assert succeeded.status_code == 200
    assert delivery.status == DELIVERED


def test_receiver_that_is_down_is_retried(alice, any_service, receiver):
    """A receiver that is down is tried to the end of the schedule."""
    url = f"http://127.0.0.2:{receiver.port}/"  # refused by the rules of this service
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.create(callback_url=url)
    assert set(refusal.violations) == {"callback_url"}
    assert any_service.log_lines(event="operation changed", principal=alice.subject) == []


def test_nothing_without_callback_url(alice):
    """Without a callback URL no webhook is queued or sent."""
    operation = alice.create_in("COMPLETED")
    assert not operation.HasField("callback_url")
    assert not alice.call("ListDeliveries").deliveries


def test_gone_stops_for_good(alice, receiver, path):
    """410 stops the delivery at once."""
    receiver.answer(path, 410)
    operation = alice.create_in("COMPLETED", callback_url=receiver.url(path))
    delivery = settled(alice, operation.id)
    assert (delivery.status, len(delivery.attempts)) == (STOPPED, 1)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(alice, receiver, path, status):
    """After 429 and 503 the next attempt waits for the time of Retry-After."""
    receiver.answer(path, reply(status, {"Retry-After": "2"}))
    alice.create_in("COMPLETED", callback_url=receiver.url(path))
    first, second = receiver.wait_for(path, 2)
    assert second.time - first.time >= 1.9


def test_redirect_is_a_failure(alice, receiver, path):
    """A redirect is not followed, and fails the attempt."""
    away = reply(302, {"Location": receiver.url(path + "/away")})
    receiver.answer(path, away)
    operation = alice.create_in("COMPLETED", callback_url=receiver.url(path))
    delivery = settled(alice, operation.id)
    assert [attempt.status_code for attempt in delivery.attempts] == [302, 200]
    assert receiver.got(path + "/away") == []


def test_only_chosen_events_are_sent(alice, receiver, path):
    """Events outside of the filter are not sent; a start is sent if the filter has it."""
    operation = alice.create(
        callback_url=receiver.url(path), callback_events=["operation.started", "operation.failed"]
    )
    alice.transition("StartOperation", operation.id)
    alice.transition("CompleteOperation", operation.id)
    delivery = settled(alice, operation.id)
    assert delivery.event_type == "operation.started"
    (hook,) = receiver.got(path)
    assert hook.json["type"] == "operation.started"
    assert hook.json["data"]["status"] == "PROCESSING"
    assert hook.json["data"]["revision"] == delivery.revision == 2
    assert "result" not in hook.json["data"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "https://user@example.com/",
        "https://localhost/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "http://127.0.0.1:22/",
        "https://nothing.invalid/",
        " ",
        "",
    ],
)
def test_bad_callback_url_creates_nothing(alice, url):
    """A forbidden callback URL is refused by field, and nothing is stored."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.create(callback_url=url)
    assert set(refusal.violations) == {"callback_url"}
    assert not alice.call("ListOperations").operations


def test_slow_host_delays_no_other(alice, receiver, other, path):
    """A receiver that stalls many webhooks does not delay a webhook to another one."""
    receiver.answer(path, *[silence] * 200)
    for _ in range(30):
        alice.create_in("CANCELLED", callback_url=receiver.url(path))
    (first, *_) = receiver.wait_for(path)
    alice.create_in("CANCELLED", callback_url=other.url(path))
    (quick,) = other.wait_for(path)
    assert quick.time - first.time < 5 * slowdown()
    slow = alice.call("ListDeliveries", statuses=[DELIVERED], page_size=100).deliveries
    assert len(slow) <= 1


def test_webhooks_are_counted(alice, any_service, other, path):
    """The metrics count attempts by outcome, and measure the delay of the first attempt."""
    before = any_service.metric("milepost_webhook_attempts_total", outcome="delivered")
    operation = alice.create_in("COMPLETED", callback_url=other.url(path))
    settled(alice, operation.id)
    after = any_service.metric("milepost_webhook_attempts_total", outcome="delivered")
    assert after == before + 1
    assert any_service.metric("milepost_webhook_lag_seconds_count") >= 1
