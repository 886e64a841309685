"""`ops events`, and the failures of earlier attempts in `ops get` and `ops list`."""

import re
import uuid

import pytest

from milepost_client import OperationError
from tests.e2e.commands import OK, create


@pytest.fixture
def retrying(caller, worker) -> str:
    """An operation whose first attempt has failed, and whose second one waits for long."""
    function = f"retry.{uuid.uuid4().hex}"
    id_ = create(caller, function)
    [claimed] = worker.claim([function], worker="w1")
    worker.fail(
        id_,
        [OperationError("CODEC", "no\nsuch codec"), OperationError("DISK", "full")],
        retryable=True,
        retry_delay=7_200,
        attempt=claimed.attempt,
    )
    return id_


def test_history_is_listed(caller, retrying):
    """Every change of status is a line, with its attempt, worker, actor, and its errors."""
    lines = caller("ops", "events", retrying).out.splitlines()
    assert lines[0].split() == [
        *("REVISION", "TIME", "TRANSITION", "ATTEMPT", "WORKER", "ACTOR", "WHY")
    ]
    assert [line.split()[3] for line in lines[1:]] == ["create", "claim", "retry"]
    assert re.search(r"retry +1 +w1 +wally\S* +CODEC: no such codec; DISK: full$", lines[3])


def test_history_is_a_document(caller, retrying):
    """For programs, the history is a list with every field of each event."""
    done = caller("ops", "events", retrying, "--output", "json")
    created, _, retry = done.json["events"]
    assert (created["type"], created["attempt"], created["errors"]) == ("operation.created", 0, [])
    assert (retry["type"], retry["transition"]) == ("operation.retrying", "retry")
    assert (retry["revision"], retry["attempt"], retry["worker"]) == (3, 1, "w1")
    assert [error["code"] for error in retry["errors"]] == ["CODEC", "DISK"]
    assert retry["time"].endswith("Z")
    assert (caller("ops", "events", retrying, "--quiet").out, done.code) == ("", OK)


def test_last_failure_is_shown(caller, retrying):
    """An operation that waits for another attempt shows when that is, and why."""
    shown = caller("ops", "get", retrying).out
    for fact in (
        r"failed attempts +1 of 3",
        r"last failure +CODEC: no such codec; DISK: full",
        r"next attempt +2\d{3}-",
        r"next +attempt 2 in 2 h",
    ):
        assert re.search(f"^{fact}$".replace("-$", "-"), shown, re.MULTILINE), fact
    [heading, line] = caller("ops", "list").out.splitlines()
    assert "ATTEMPT" in heading.split()
    assert "1, 1 failed" in line
    assert "attempt 2 in 2 h" in line


def test_worker_sees_the_operation_without_its_history(caller, service, retrying):
    """A worker may read an operation and not its history: the last failure is left out."""
    key = service.api_key("wally", roles=("WORKER", "CALLER"), functions=("*",))
    done = caller("ops", "get", retrying, MILEPOST_API_KEY=key)
    assert done.code == OK
    assert "last failure" not in done.out
