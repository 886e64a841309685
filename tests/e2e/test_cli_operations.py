"""The `ops` commands: a client for terminals and for scripts."""

import json
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from milepost_client import OperationError, SyncMilepost
from tests.e2e.commands import (
    DENIED,
    ENDED_BADLY,
    NOT_FOUND,
    OK,
    QUEUE_TIMEOUT_S,
    REFUSED,
    UNAVAILABLE,
    USAGE,
    Done,
    milepost,
    on_a_terminal,
)

UNKNOWN = "op_000000000000000000000000"


@pytest.fixture
def access(service) -> dict[str, str]:
    """The variables of a caller of this test alone."""
    key = service.api_key(f"carol-{uuid.uuid4().hex}", roles=("CALLER",))
    return {"MILEPOST_ADDRESS": service.address, "MILEPOST_API_KEY": key}


@pytest.fixture
def caller(access: dict[str, str]) -> Callable[..., Done]:
    """A function that runs commands as this caller."""
    return lambda *arguments, **more: milepost(*arguments, **{**access, **more})


@pytest.fixture
def worker(service) -> Iterator[SyncMilepost]:
    """A client that may work on every function."""
    key = service.api_key("wally", roles=("WORKER",), functions=("*",))
    with SyncMilepost(service.address, api_key=key) as client:
        yield client


def create(caller: Callable[..., Done], function: str = "video.transcode") -> str:
    """Create an operation and return its id."""
    return str(caller("ops", "create", function, "--output", "json").json["id"])


@contextmanager
def in_background(work: Callable[[], None]) -> Iterator[None]:
    """Run the work in a thread while the block runs."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(QUEUE_TIMEOUT_S)


def test_operation_is_created_and_shown(caller):
    """An operation is created with every option and shown."""
    words = (
        *("--version", "2", "--metadata", '{"a": {"b": ["ü", 1]}}', "--request-id", "cli-1"),
        *("--ttl", "15m", "--retry-after", "2", "--output", "json"),
    )
    created = caller("ops", "create", "video.transcode", *words)
    assert (created.code, created.err) == (OK, "")
    operation = created.json
    assert (operation["status"], operation["version"]) == ("PENDING", "2")
    assert operation["owner"].startswith("carol-")
    assert (operation["ttl_seconds"], operation["retry_after_seconds"]) == (900.0, 2.0)
    assert operation["metadata"] == {"a": {"b": ["ü", 1]}}
    assert operation["create_time"].endswith("Z")
    got = caller("ops", "get", operation["id"], "--output", "json").json
    assert {**got, "replayed": None} == {**operation, "replayed": None}
    text = caller("ops", "get", operation["id"]).out
    assert re.search(rf"^id +{operation['id']}$", text, re.MULTILINE)
    assert re.search(r"^function +video\.transcode 2$", text, re.MULTILINE)


def test_create_can_be_repeated(caller):
    """The same request_id finds the same operation; with other content it is refused."""
    words = ("ops", "create", "video.transcode", "--request-id", "cli-2", "--output", "json")
    first, second = caller(*words).json, caller(*words).json
    assert (first["id"], second["replayed"]) == (second["id"], True)
    done = caller(*words, "--version", "3")
    assert (done.code, done.error["reason"], done.error["code"]) == (
        REFUSED,
        "REQUEST_ID_REUSED",
        "ALREADY_EXISTS",
    )


def test_metadata_comes_from_files_too(caller, tmp_path):
    """Metadata can be read from a file and from standard input."""
    (tmp_path / "m.json").write_text('{"from": "file"}')
    words = ("ops", "create", "x", "--output", "json", "--metadata")
    assert caller(*words, f"@{tmp_path}/m.json").json["metadata"] == {"from": "file"}
    assert caller(*words, "@-", stdin='{"from": "stdin"}').json["metadata"] == {"from": "stdin"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--metadata", "{"), "is not JSON"),
        (("--metadata", "[1]"), "must be a JSON object"),
        (("--metadata", "@/nowhere"), "/nowhere: No such file or directory"),
        (("--metadata", '{"n": 123456789012345678901}'), "would lose digits"),
        (("--metadata", '{"n": NaN}'), "no place in JSON"),
        (("--ttl", "5y"), "must be like 90, 90s, 15m, 24h or 7d"),
        (("--retry-after", "-1"), "must be like 90, 90s, 15m, 24h or 7d"),
        (("--address", "nonsense"), "must be HOST:PORT"),
        (("--address", "127.0.0.1:99999"), "must be HOST:PORT"),
        (("--api-key", "two words"), "an API key is one word"),
    ],
)
def test_wrong_arguments_of_create_are_one_line(caller, arguments, text):
    """Metadata that JSON cannot represent is a wrong argument."""
    done = caller("ops", "create", "x", *arguments)
    assert (done.code, done.out) == (USAGE, "")
    [line] = done.err.splitlines()
    assert line.startswith("error: ")
    assert text in line


def test_service_names_every_field_that_is_wrong(caller):
    """A refusal of the service is shown with its reason and every violated field."""
    done = caller("ops", "create", " ", "--request-id", "a b", "--output", "json")
    assert (done.code, done.error["reason"]) == (REFUSED, "INVALID_REQUEST")
    assert [item["field"] for item in done.error["violations"]] == ["function", "request_id"]
    done = caller("ops", "get", "nonsense")
    assert done.code == REFUSED
    assert done.err.startswith("error: operation_id: wrong format")


def test_operations_are_listed(caller):
    """The list is newest first, can be filtered, and says when there is more."""
    ids = [create(caller, f"list.{n}") for n in range(3)]
    page = caller("ops", "list", "--limit", "2", "--output", "json").json
    assert [item["id"] for item in page["operations"]] == [ids[2], ids[1]]
    assert page["more"]
    assert "result" not in page["operations"][0]
    listed = caller("ops", "list", "--all", "--output", "json").json
    assert not listed["more"]
    assert {item["id"] for item in listed["operations"]} >= set(ids)
    words = ("--function", "list.1", "--status", "pending", "--status", "COMPLETED")
    text = caller("ops", "list", *words).out
    assert ids[1] in text
    assert ids[0] not in text
    none = caller("ops", "list", "--function", "list.none")
    assert (none.code, none.out) == (OK, "No operations found.\n")


@pytest.mark.parametrize("arguments", [("--status", "LOST"), ("--limit", "0"), ("--limit", "x")])
def test_wrong_filters_are_one_line(caller, arguments):
    """An invalid filter is refused."""
    done = caller("ops", "list", *arguments)
    assert (done.code, len(done.err.splitlines())) == (USAGE, 1)


def test_operation_is_cancelled_once(caller):
    """An operation is cancelled; a second cancel is refused with the reason."""
    id_ = create(caller)
    done = caller("ops", "cancel", id_, "--reason", "changed my mind", "--output", "json")
    assert (done.code, done.json["status"]) == (OK, "CANCELLED")
    done = caller("ops", "cancel", id_)
    assert (done.code, done.out) == (REFUSED, "")
    assert done.err.startswith("error: cannot cancel while CANCELLED")


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
    assert re.search(r"claimable +\S", shown)
    assert re.search(r"failed attempts +0 of 3", shown)
    done = caller("ops", "release", id_)
    assert done.err.startswith("error: cannot release while PENDING")


@pytest.mark.parametrize("command", ["get", "watch", "cancel", "release"])
def test_unknown_operation_has_its_own_exit_code(caller, command):
    """An operation that the caller may not see is exit code 3."""
    done = caller("ops", command, UNKNOWN, "--output", "json")
    assert (done.code, done.error["reason"]) == (NOT_FOUND, "OPERATION_NOT_FOUND")


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
    """A cancelled operation is exit code 5 too."""
    id_ = create(caller)
    caller("ops", "cancel", id_)
    done = caller("ops", "watch", id_, "--output", "json")
    assert (done.code, done.error["reason"]) == (ENDED_BADLY, "OPERATION_CANCELLED")


def test_watch_gives_up_after_its_timeout(caller):
    """A watch that reaches its timeout before the operation ends has exit code 4."""
    id_ = create(caller)
    done = caller("ops", "watch", id_, "--timeout", "0.3", "--output", "json")
    assert (done.code, done.error["reason"]) == (UNAVAILABLE, "STILL_RUNNING")
    assert done.json["status"] == "PENDING"


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


def test_no_colour_where_none_is_wanted(access, caller):
    """NO_COLOR is obeyed on a terminal, and ids are whole however narrow it is."""
    id_ = create(caller)
    written = on_a_terminal("ops", "list", columns=40, NO_COLOR="1", **access)
    assert id_ in written
    assert re.search(r"\x1b\[(3|4|9)\d", written) is None


def test_calls_need_a_key(caller, service):
    """A missing key is a usage error; a bad key and a missing role are refused by the service."""
    done = caller("ops", "list", "--output", "json", MILEPOST_API_KEY="")
    assert (done.code, done.error["reason"]) == (USAGE, "API_KEY_NEEDED")
    done = caller("ops", "list", "--output", "json", MILEPOST_API_KEY="mp_nonsense")
    assert (done.code, done.error["reason"]) == (DENIED, "UNAUTHENTICATED")
    assert "mp_nonsense" not in done.err
    idle = service.api_key("wally", roles=("WORKER",), functions=())
    done = caller("ops", "list", "--output", "json", "--api-key", idle)
    assert (done.code, done.error["code"]) == (DENIED, "PERMISSION_DENIED")


def test_unreachable_service_fails_at_once(caller):
    """Without a service at the address, the command fails at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # taken, but without a listener
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        done = caller("ops", "list", "--address", address)
        assert (done.code, done.out) == (UNAVAILABLE, "")
        assert done.err.startswith(f"error: nothing listens on {address}")
        done = caller("ops", "list", "--address", address, "--output", "json")
        assert done.error["code"] == "UNAVAILABLE"
