"""`ops cancel`, `ops release` and `ops delete`."""

import re

import pytest

from tests.e2e.commands import (
    NOT_FOUND,
    OK,
    REFUSED,
    create,
)

UNKNOWN = "op_000000000000000000000000"


def test_operation_is_cancelled_once(caller):
    """An operation is cancelled; a second cancel is refused with the reason."""
    id_ = create(caller)
    done = caller("ops", "cancel", id_, "--reason", "changed my mind", "--output", "json")
    assert (done.code, done.json["status"]) == (OK, "CANCELLED")
    done = caller("ops", "cancel", id_)
    assert (done.code, done.out) == (REFUSED, "")
    assert done.err.startswith("error: cannot cancel while CANCELLED")


def test_cancel_with_a_grace_waits_for_the_worker(caller, worker):
    """With a grace, an operation in progress shows the request, its delivery, and its end."""
    id_ = create(caller)
    attempt = worker.start(id_).attempt
    words = ("ops", "cancel", id_, "--grace", "30m", "--reason", "changed my mind")
    done = caller(*words, "--output", "json")
    assert (done.code, done.json["status"]) == (OK, "PROCESSING")
    assert done.json["cancel_expire_time"] > done.json["cancel_request_time"]
    assert "cancel in 30 min" in caller("ops", "list").out
    worker.update_progress(id_, 0.5, attempt=attempt)
    shown = caller("ops", "get", id_).out
    for fact in ("cancel requested", "cancel delivered", "grace until", "cancel reason"):
        assert re.search(rf"^{fact} +\S", shown, re.MULTILINE), fact
    worker.acknowledge_cancellation(id_, attempt=attempt)
    assert caller("ops", "get", id_, "--output", "json").json["status"] == "CANCELLED"


def test_operation_is_released_with_a_delay(caller, worker):
    """An operation in progress is released; the release of another attempt is refused."""
    id_ = create(caller)
    worker.start(id_)
    done = caller("ops", "release", id_, "--attempt", "2")
    assert (done.code, done.out) == (REFUSED, "")
    words = ("--attempt", "1", "--delay", "10m", "--reason", "maintenance")
    done = caller("ops", "release", id_, *words, "--output", "json")
    assert (done.code, done.json["status"]) == (OK, "PENDING")
    assert (done.json["attempt"], done.json["failed_attempts"]) == (1, 0)
    assert done.json["next_attempt_time"] > done.json["create_time"]
    shown = caller("ops", "get", id_).out
    assert re.search(r"next attempt +\S", shown)
    assert re.search(r"failed attempts +0 of 3", shown)
    done = caller("ops", "release", id_)
    assert done.err.startswith("error: cannot release while PENDING")


@pytest.mark.parametrize("command", ["get", "watch", "cancel", "release", "events"])
def test_unknown_operation_has_its_own_exit_code(caller, command):
    """An operation that the caller may not see is exit code 3."""
    done = caller("ops", command, UNKNOWN, "--output", "json")
    assert (done.code, done.error["reason"]) == (NOT_FOUND, "OPERATION_NOT_FOUND")


def test_ended_operation_is_deleted(caller):
    """An active operation is kept; an ended one is deleted, and a repeated call is a success."""
    id_ = create(caller)
    done = caller("ops", "delete", id_)
    assert done.code == REFUSED
    assert done.err.startswith("error: cannot purge while PENDING")
    revision = caller("ops", "cancel", id_, "-o", "json").json["revision"]
    words = ("ops", "delete", id_, "--request-id", "r1", "--output", "json")
    done = caller(*words, "--expected-revision", str(revision + 1))
    assert (done.code, done.error["reason"]) == (REFUSED, "REVISION_MISMATCH")
    for _ in range(2):
        assert caller(*words).json == {"id": id_, "deleted": True}
    assert caller("ops", "get", id_).code == NOT_FOUND
