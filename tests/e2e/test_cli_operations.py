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
        *("--max-attempts", "7", "--original-request-id", "order 42"),
    )
    created = caller("ops", "create", "video.transcode", *words)
    assert (created.code, created.err) == (OK, "")
    operation = created.json
    assert (operation["status"], operation["version"]) == ("PENDING", "2")
    assert operation["owner"].startswith("carol-")
    assert (operation["ttl_seconds"], operation["retry_after_seconds"]) == (900.0, 2.0)
    assert operation["metadata"] == {"a": {"b": ["ü", 1]}}
    assert (operation["max_attempts"], operation["original_request_id"]) == (7, "order 42")
    assert operation["create_time"].endswith("Z")
    got = caller("ops", "get", operation["id"], "--output", "json").json
    assert {**got, "replayed": None} == {**operation, "replayed": None}
    text = caller("ops", "get", operation["id"]).out
    assert re.search(rf"^id +{operation['id']}$", text, re.MULTILINE)
    assert re.search(r"^function +video\.transcode 2$", text, re.MULTILINE)


def test_callbacks_are_passed_to_the_service(caller):
    """URL and events of the webhooks reach the service, which refuses what it does not know."""
    words = ("ops", "create", "x", "--output", "json", "--callback-url", "https://127.0.0.1/")
    done = caller(*words, "--callback-event", "operation.failed", "--callback-event", "nonsense")
    assert (done.code, done.error["reason"]) == (REFUSED, "INVALID_REQUEST")
    fields = [item["field"] for item in done.error["violations"]]
    assert fields == ["callback_events[1]"] or "callback_url" in fields


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
        (("--ttl", "999999999d"), "is longer than 100000 days"),
        (("--max-attempts", "0"), "greater than or equal to 1"),
        (("--timeout", "1"), "--timeout needs --wait"),
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


def test_lists_have_bounds_in_time(caller):
    """`--since` and `--until` take ages and times; the one is inclusive, the other exclusive."""
    first, second = create(caller), create(caller)
    created = caller("ops", "get", second, "--output", "json").json["create_time"]

    def listed(*words: str) -> list[str]:
        done: Done = caller("ops", "list", "--quiet", *words)
        return done.out.split()

    assert listed("--since", "1h") == [second, first]
    assert listed("--until", "1h") == []
    assert listed("--since", created) == [second]
    assert listed("--until", created) == [first]
    assert listed("--since", "2026-01-01", "--until", "2026-01-02T03:04+01:00") == []


def test_admin_lists_the_operations_of_one_owner(caller, service):
    """An admin may name an owner; to other callers that is refused."""
    id_ = create(caller)
    owner = caller("ops", "get", id_, "--output", "json").json["owner"]
    words = ("ops", "list", "--quiet", "--owner")
    root = service.api_key("root", roles=("ADMIN",))
    assert caller(*words, owner, MILEPOST_API_KEY=root).out == f"{id_}\n"
    assert caller(*words, "stranger", MILEPOST_API_KEY=root).out == ""
    assert caller(*words, "stranger").code == DENIED


def test_list_gives_the_message(caller, worker):
    """The list has the first error of a failed operation, or else the last progress message."""
    failed, running = create(caller), create(caller)
    worker.fail(failed, [OperationError("CODEC", "no\nsuch codec")])
    worker.start(running)
    worker.update_progress(running, 0.5, "half of the frames")
    lines = {line.split()[0]: line for line in caller("ops", "list").out.splitlines()}
    assert lines["ID"].endswith("MESSAGE")
    assert lines[failed].endswith("video.transcode  CODEC: no such codec")
    assert lines[running].endswith("video.transcode  half of the frames")


@pytest.mark.parametrize("columns", [40, 80])
def test_ids_and_functions_are_whole(access, caller, worker, columns):
    """However narrow the terminal is, no id and no function is cut or broken."""
    function = f"video.{'very-' * 12}long"
    ids = [create(caller, name) for name in ("video.transcode", function)]
    worker.fail(ids[0], [OperationError("CODEC", "a message of many words " * 5)])
    written = on_a_terminal("ops", "list", columns=columns, NO_COLOR="1", **access)
    for text in (*ids, "video.transcode", function):
        assert text in written
    [line] = [line for line in caller("ops", "list").out.splitlines() if ids[0] in line]
    assert line.endswith("of many words")


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


def test_create_waits_for_the_end(caller, worker):
    """With --wait the end is shown, and the exit code says how it went."""
    functions = [f"wait.{uuid.uuid4().hex}" for _ in range(2)]

    def work() -> None:
        for claimed in (worker.claim([name], timeout=QUEUE_TIMEOUT_S)[0] for name in functions):
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


def test_quiet_commands_print_ids_only(caller):
    """With --quiet a command prints ids, or nothing."""
    id_ = caller("ops", "create", "x", "-q").out.strip()
    for words in (("get", id_), ("list",), ("cancel", id_)):
        assert caller("ops", *words, "--quiet").out == f"{id_}\n"
    assert caller("ops", "watch", id_, "--quiet").out == ""
    assert caller("ops", "delete", id_, "--quiet").out == ""
    assert caller("ops", "list", "--quiet").out == ""


def test_address_and_key_come_from_the_settings_file(access, caller, service, tmp_path):
    """Options win over the environment, and that over the file, which others should not read."""
    file = tmp_path / "client.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in access.items()))
    file.chmod(0o600)
    unset = dict.fromkeys(access, "")
    id_ = create(caller)
    done = caller("ops", "list", "--quiet", MILEPOST_CONFIG_FILE=str(file), **unset)
    assert (done.out, done.err) == (f"{id_}\n", "")
    file.write_text(f"MILEPOST_API_KEY=mp_wrong\nMILEPOST_ADDRESS={service.address}\n")
    file.chmod(0o644)
    done = caller("ops", "list", MILEPOST_CONFIG_FILE=str(file), **unset)
    assert done.code == DENIED
    assert done.err.startswith(f"warning: {file} has MILEPOST_API_KEY and every user can read it")
    done = caller("ops", "list", "--quiet", MILEPOST_CONFIG_FILE=str(file))
    assert (done.out, done.err) == (f"{id_}\n", "")
    done = caller("ops", "list", "--api-key", "mp_other", MILEPOST_CONFIG_FILE=str(file))
    assert done.code == DENIED


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
