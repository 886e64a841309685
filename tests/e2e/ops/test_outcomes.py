"""`ops watch`, `ops result` and `ops create --wait`: the end of an operation."""

import json
import uuid
from collections.abc import Callable

import pytest

from milepost_client import OperationError
from tests.e2e.commands import (
    ENDED_BADLY,
    MAX_WAIT_S,
    OK,
    UNAVAILABLE,
    Done,
    create,
    in_background,
    on_a_terminal,
)


def test_watch_follows_to_a_good_end(caller, worker):
    """Every change is one JSON line, revisions rising; the last one has the result."""
    id_ = create(caller)

    def work() -> None:
        with worker.work(id_, worker="w1") as work:
            work.progress(0.5, "halfway")
            work.result = {"frames": 7}

    with in_background(work):
        done = caller("ops", "watch", id_, "--output", "json")
    assert (done.code, done.err) == (OK, "")
    seen = [json.loads(line) for line in done.out.splitlines()]
    revisions = [item["revision"] for item in seen]
    assert revisions == sorted(set(revisions))
    assert (seen[-1]["status"], seen[-1]["result"]) == ("COMPLETED", {"frames": 7})


def test_create_waits_for_the_end(caller, worker):
    """With --wait the end is shown, and the exit code says how it went."""
    functions = [f"wait.{uuid.uuid4().hex}" for _ in range(2)]

    def work() -> None:
        for claimed in (worker.claim([name], timeout=MAX_WAIT_S)[0] for name in functions):
            if claimed.function == functions[0]:
                worker.complete(claimed.id, {"frames": 7}, attempt=claimed.attempt)
            else:
                worker.fail(claimed.id, [OperationError("X", "y")], attempt=claimed.attempt)

    words = ("ops", "create", "--wait", "--output", "json")
    with in_background(work):
        good, bad = (caller(*words, name) for name in functions)
    assert (good.code, good.json["status"], good.json["result"]) == (OK, "COMPLETED", {"frames": 7})
    assert (bad.code, bad.json["status"]) == (ENDED_BADLY, "FAILED")
    assert bad.error["reason"] == "OPERATION_FAILED"
    late = caller("ops", "create", "wait.unworked", "--wait", "--timeout", "0.3", "--quiet")
    assert (late.code, len(late.out.splitlines())) == (UNAVAILABLE, 1)


def test_result_is_printed(caller, worker):
    """A result is printed as JSON; without one the exit code tells why."""
    id_ = create(caller)
    done = caller("ops", "result", id_)
    assert (done.code, done.out) == (UNAVAILABLE, "")
    assert done.err == f"error: operation {id_} is still PENDING\n"
    assert caller("ops", "result", id_, "--wait", "--timeout", "0.3").code == UNAVAILABLE
    with worker.work(id_) as work:
        work.result = ["ü", {"frames": 7}]
    for words in ((), ("--wait",), ("--output", "json")):
        done = caller("ops", "result", id_, *words)
        assert (done.code, done.json) == (OK, ["ü", {"frames": 7}])
    assert caller("ops", "result", id_, "--quiet").out == ""
    for spoil in (lambda each: worker.fail(each, [OperationError("X", "y")]), cancelled_by(caller)):
        bad = create(caller)
        spoil(bad)
        done = caller("ops", "result", bad)
        assert (done.code, done.out) == (ENDED_BADLY, "")


def cancelled_by(caller: Callable[..., Done]) -> Callable[[str], Done]:
    """Return a function that cancels an operation."""
    return lambda id_: caller("ops", "cancel", id_)


def test_watch_of_a_failure_is_exit_code_5(caller, worker):
    """A failed operation is shown with its errors, for people on one line."""
    id_ = create(caller)
    worker.fail(id_, [OperationError("CODEC", "no\nsuch \x1b[31mcodec")])
    done = caller("ops", "watch", id_)
    assert done.code == ENDED_BADLY
    assert done.err == f"error: operation {id_} is FAILED: CODEC: no such \\x1b[31mcodec\n"
    assert "\x1b" not in done.out
    document = caller("ops", "watch", id_, "--output", "json")
    assert document.error["reason"] == "OPERATION_FAILED"
    assert document.json["errors"][0]["code"] == "CODEC"


def test_watch_of_a_cancellation_is_exit_code_5(caller):
    """A cancelled operation is exit code 5 too, and its reason is shown."""
    id_ = create(caller)
    caller("ops", "cancel", id_, "--reason", "not needed")
    done = caller("ops", "watch", id_, "--output", "json")
    assert (done.code, done.error["reason"]) == (ENDED_BADLY, "OPERATION_CANCELLED")
    assert done.error["message"] == f"operation {id_} is CANCELLED: not needed"


def test_json_cannot_control_the_terminal(caller):
    """Control characters of other users are escaped, which changes no value."""
    id_ = create(caller)
    reason = "not \x9b31m\u202eneeded"
    caller("ops", "cancel", id_, "--reason", reason)
    done = caller("ops", "get", id_, "--output", "json")
    assert done.json["cancel_reason"] == reason
    assert done.out.isascii()


@pytest.mark.parametrize("timeout", ["0", "0.3"])
@pytest.mark.parametrize(
    "words", [("watch", ""), ("create", "wait.unworked", "--wait")], ids=["watch", "create"]
)
def test_wait_that_gives_up_shows_the_last_state(caller, words, timeout):
    """A wait that ends before its operation has exit code 4, one state and one error."""
    command, what, *more = words
    done = caller(
        "ops", command, what or create(caller), *more, "--timeout", timeout, "--output", "json"
    )
    assert (done.code, done.error["reason"]) == (UNAVAILABLE, "STILL_RUNNING")
    assert done.json["status"] == done.error["status"] == "PENDING"


@pytest.mark.parametrize("words", [(), ("--wait", "--timeout", "0"), ("--wait", "--timeout", "1")])
def test_result_that_does_not_exist_yet_is_an_error_with_the_status(caller, words):
    """Standard output of a result has the result only; the error document has the status."""
    done = caller("ops", "result", create(caller), *words, "--output", "json")
    assert (done.code, done.out) == (UNAVAILABLE, "")
    assert (done.error["reason"], done.error["status"]) == ("STILL_RUNNING", "PENDING")


def test_watch_draws_a_bar_on_a_terminal(access, caller, worker):
    """On a terminal, even a narrow one, a bar shows how far the work is."""
    id_ = create(caller)

    def work() -> None:
        with worker.work(id_) as work:
            work.progress(0.5, "a message that does not fit on the line with the bar")

    with in_background(work):
        written = on_a_terminal("ops", "watch", id_, columns=50, **access)
    assert "━" in written
    assert "100%" in written
    assert "COMPLETED" in written
    assert "progress.percentage" not in written
