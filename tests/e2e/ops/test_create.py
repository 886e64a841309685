"""`ops create`: every option, and every wrong value."""

import re

import pytest

from tests.e2e.commands import (
    OK,
    REFUSED,
    USAGE,
)


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


def test_plan_of_the_attempts_is_passed_to_the_service(caller):
    """Schedule, priority, unique key, retry policy and timeouts reach the operation."""
    words = (
        *("--schedule", "2h", "--priority", "7", "--unique-key", "report-of-may"),
        *("--initial-backoff", "10s", "--backoff-multiplier", "1.5", "--max-backoff", "2m"),
        *("--queue-timeout", "1h", "--run-timeout", "90s", "--output", "json"),
    )
    operation = caller("ops", "create", "report", *words).json
    assert (operation["priority"], operation["unique_key"]) == (7, "report-of-may")
    assert operation["next_attempt_time"] == operation["schedule_time"] > operation["create_time"]
    assert operation["retry_policy"] == {
        "initial_backoff_seconds": 10.0,
        "backoff_multiplier": 1.5,
        "max_backoff_seconds": 120.0,
    }
    assert (operation["queue_timeout_seconds"], operation["run_timeout_seconds"]) == (3600.0, 90.0)
    text = caller("ops", "get", operation["id"]).out
    for fact in (
        r"scheduled +2\d{3}-",
        r"next attempt +2\d{3}-",
        r"next +attempt 1 in 2 h",
        r"unique key +report-of-may",
        r"backoff +10 s, times 1\.5, at most 120 s",
        r"queue timeout +3600 s",
        r"run timeout +90 s",
    ):
        assert re.search(f"^{fact}", text, re.MULTILINE), fact
    assert "attempt 1 in 2 h" in caller("ops", "list").out


def test_schedule_is_a_time_too(caller):
    """A schedule may be a time; one that has passed means now."""
    time = "2026-01-02T03:04:05+01:00"
    operation = caller("ops", "create", "report", "--schedule", time, "--output", "json").json
    assert operation["schedule_time"] == "2026-01-02T02:04:05Z"
    assert operation["next_attempt_time"] is None


def test_unique_key_joins_or_refuses(caller):
    """A second create with the unique key shows the active operation, or fails if asked to."""
    words = ("ops", "create", "report", "--unique-key", "k", "--output", "json")
    first, second = caller(*words).json, caller(*words).json
    assert (first["joined"], second["joined"]) == (False, True)
    assert first["id"] == second["id"]
    assert re.search(r"^joined +the active operation", caller(*words[:-2]).out, re.MULTILINE)
    refused = caller(*words, "--if-taken", "refuse")
    assert (refused.code, refused.error["reason"]) == (REFUSED, "UNIQUE_KEY_TAKEN")
    assert refused.error["metadata"] == {"operation_id": first["id"], "unique_key": "k"}


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
        (("--if-taken", "join"), "--if-taken needs --unique-key"),
        (("--unique-key", "k", "--if-taken", "ask"), "is not one of 'join', 'refuse'"),
        (("--priority", "10"), "less than or equal to 9"),
        (("--backoff-multiplier", "0.5"), "greater than or equal to 1"),
        (("--schedule", "soon"), "must be a duration such as 2h or 7d, or a time"),
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
