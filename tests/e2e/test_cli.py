"""The command line as people and scripts use it: real processes, a real service."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from milepost.domain.operation import Status
from milepost.storage.engine import open_engine
from milepost.storage.schema import latest
from milepost.storage.tables import operations
from milepost_client import OperationError, SyncMilepost
from tests import factories

OK, REFUSED, USAGE, NOT_FOUND, UNAVAILABLE, ENDED_BADLY, DENIED = range(7)
UNKNOWN = "op_000000000000000000000000"
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Done:
    """What a command has written, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        assert self.out.endswith("\n")
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The one document on standard error."""
        document: dict[str, Any] = json.loads(self.err)["error"]
        assert document["exit_code"] == self.code
        return document


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process, with these settings and no others."""
    outside = {k: v for k, v in os.environ.items() if not k.startswith("MILEPOST_")}
    return {**outside, **more}


def milepost(*arguments: str, stdin: str = "", **settings: str) -> Done:
    """Run one command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "milepost", *arguments],
        env=environment(settings),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def on_a_terminal(*arguments: str, columns: int, **settings: str) -> str:
    """Run one command on a terminal of this width, and return all that it wrote there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "milepost", *arguments],
        env=environment({"TERM": "xterm", "COLUMNS": str(columns), **settings}),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written, end = b"", time.monotonic() + PATIENCE_S
    try:
        while select.select([ours], [], [], end - time.monotonic())[0]:
            try:
                written += os.read(ours, 65_536)
            except OSError:  # the other side is closed
                break
        process.wait(max(0.0, end - time.monotonic()))
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return written.decode()


@pytest.fixture
def store(tmp_path: Path) -> dict[str, str]:
    """The settings of an embedded store of one's own that is not there yet."""
    return {"MILEPOST_DATABASE_URL": f"sqlite:///{tmp_path}/new/milepost.db"}


@pytest.fixture
def access(service) -> dict[str, str]:
    """What a caller that no other test knows needs to call the service."""
    key = service.api_key(f"carol-{uuid.uuid4().hex}", roles=("CALLER",))
    return {"MILEPOST_ADDRESS": service.address, "MILEPOST_API_KEY": key}


@pytest.fixture
def caller(access: dict[str, str]) -> Callable[..., Done]:
    """Runs commands as this caller."""
    return lambda *arguments, **more: milepost(*arguments, **{**access, **more})


@pytest.fixture
def worker(service) -> Iterator[SyncMilepost]:
    """A client that may work on every function."""
    key = service.api_key("wally", roles=("WORKER",), functions=("*",))
    with SyncMilepost(service.address, api_key=key) as client:
        yield client


def create(caller: Callable[..., Done], function: str = "video.transcode") -> str:
    """The id of a new operation."""
    return str(caller("ops", "create", function, "--output", "json").json["id"])


@contextmanager
def in_background(work: Callable[[], None]) -> Iterator[None]:
    """Work while the block runs."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE_S)


# --- what every command has in common ---


def test_help_tells_commands_and_exit_codes():
    """Without arguments, the commands are listed, and what their exit codes mean."""
    done = milepost()
    assert done.code == OK
    for word in ("serve", "migrate", "demo", "keys", "ops", "check-config", "version"):
        assert word in done.out
    assert "5 the operation ended FAILED or CANCELLED" in " ".join(done.out.split())


COMMANDS = [
    ("serve",),
    ("migrate",),
    ("demo",),
    ("keys", "create"),
    ("keys", "list"),
    ("keys", "revoke"),
    ("ops", "create"),
    ("ops", "get"),
    ("ops", "list"),
    ("ops", "watch"),
    ("ops", "cancel"),
    ("check-config",),
    ("version",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_unknown_options_are_one_line(command):
    """A wrong option of any command is one line on standard error, and exit code 2."""
    done = milepost(*command, "--bogus")
    assert (done.code, done.out) == (USAGE, "")
    line = f"error: No such option: --bogus; see milepost {' '.join(command)} --help\n"
    assert done.err == line


def test_errors_are_json_where_the_output_is():
    """With --output json, even what is wrong with the arguments is one document."""
    done = milepost("ops", "get", "--output", "json")
    assert (done.code, done.out) == (USAGE, "")
    assert (done.error["reason"], done.error["code"]) == ("USAGE", "INVALID_ARGUMENT")
    assert "Missing argument 'ID'" in done.error["message"]
    assert milepost("keyz", "--output=json").error["reason"] == "USAGE"


def test_version_is_that_of_the_package():
    """The version is told to people and programs."""
    assert milepost("version").out.startswith("milepost 0.")
    assert milepost("version", "--output", "json").json["version"].startswith("0.")


@pytest.mark.parametrize("command", [("--help",), ("version",), ("check-config",)], ids=" ".join)
def test_light_commands_import_nothing_heavy(command):
    """What needs no service and no database starts without their libraries."""
    code = (
        "import sys; from milepost.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print(*{'grpc', 'sqlalchemy', 'alembic', 'aiohttp'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        env=environment({}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == ""


# --- check-config ---


def test_check_config_shows_what_is_in_force(tmp_path):
    """Every setting has a value, a source and a meaning; secrets are masked, typos are told."""
    file = tmp_path / "settings.env"
    file.write_text("MILEPOST_DRAIN_SECONDS=7\n")
    settings = {
        "MILEPOST_CONFIG_FILE": str(file),
        "MILEPOST_DATABASE_URL": "postgresql+psycopg://u:s3cret@host/name",
        "MILEPOST_LISTEM": "127.0.0.1:1",
    }
    done = milepost("check-config", "--output", "json", **settings)
    shown = {item["name"]: item for item in done.json["settings"]}
    database = shown["MILEPOST_DATABASE_URL"]
    assert (database["value"], database["source"]) == (
        "postgresql+psycopg://u:***@host/name",
        "environment",
    )
    assert shown["MILEPOST_DRAIN_SECONDS"]["source"] == "file"
    assert shown["MILEPOST_REFLECTION"]["source"] == "default"
    assert done.json["warnings"] == ["MILEPOST_LISTEM is no setting; did you mean MILEPOST_LISTEN?"]
    assert (done.code, done.json["problems"]) == (OK, [])
    text = milepost("check-config", **settings)
    assert "s3cret" not in text.out + text.err + done.out + done.err
    assert re.search(r"MILEPOST_DRAIN_SECONDS +7 +file +How long", text.out)
    assert text.err == "warning: MILEPOST_LISTEM is no setting; did you mean MILEPOST_LISTEN?\n"


def test_check_config_reports_every_problem():
    """Problems are one line each, all at once, and exit code 2; `serve` says the same."""
    settings = {"MILEPOST_LISTEN": "0.0.0.0:1", "MILEPOST_LOG_LEVEL": "loud"}
    checked, served = milepost("check-config", **settings), milepost("serve", **settings)
    assert (checked.code, served.code) == (USAGE, USAGE)
    assert checked.err == served.err
    first, second = checked.err.splitlines()
    assert first.startswith("error: MILEPOST_LISTEN: is reachable from outside, without TLS")
    assert second.startswith("error: MILEPOST_LOG_LEVEL: ")
    done = milepost("serve", "--output", "json", **settings)
    assert (done.error["reason"], len(done.error["problems"])) == ("INVALID_SETTINGS", 2)


# --- migrate and keys: on the database ---


def test_migrate_goes_forth_and_back(store):
    """The schema is brought up to date, back to nothing, and to a revision."""
    assert milepost("migrate", "--output", "json", **store).json == {"revision": latest()}
    assert milepost("migrate", "--to", "base", "--output", "json", **store).json == {
        "revision": None
    }
    assert milepost("migrate", "--to", "0001", **store).out == "the schema is at 0001\n"
    done = milepost("migrate", "--to", "nonsense", **store)
    assert (done.code, done.out) == (REFUSED, "")
    assert done.err == "error: Can't locate revision identified by 'nonsense'\n"


def test_clean_up_without_a_service(store):
    """One pass is previewed and made on the database, and says what it did (B68)."""
    assert milepost("migrate", **store).code == OK
    old = factories.LONG_AGO + timedelta(days=1)
    rows = [factories.row(status, expire_time=old) for status in Status]
    with open_engine(store["MILEPOST_DATABASE_URL"]).begin() as connection:
        connection.execute(sa.insert(operations), rows)
    preview = milepost("cleanup", "--dry-run", **store)
    assert preview.out == "4 would be deleted, 1 would be failed with EXPIRED\n"
    done = milepost("cleanup", "--output", "json", **store).json
    assert done == {
        "dry_run": False,
        "deleted_count": 4,
        "failed_count": 1,
        "more_remaining": False,
    }
    assert milepost("cleanup", **store).out == "0 deleted, 0 failed with EXPIRED\n"


def test_key_lives_and_dies(store):
    """A key is created, shown once, listed without its secret, and revoked, twice if need be."""
    words = ("keys", "create", "--subject", "bench", "--role", "CALLER", "--role", "WORKER")
    created = milepost(*words, "--output", "json", **store)
    assert (created.code, created.err) == (OK, "")
    key_id, secret = created.json["key_id"], created.json["secret"]
    assert secret.startswith(f"mp_{key_id}_")
    listed = milepost("keys", "list", "--output", "json", **store)
    assert secret not in listed.out
    [key] = listed.json["keys"]
    assert (key["key_id"], key["subject"]) == (key_id, "bench")
    assert (key["roles"], key["functions"]) == (["CALLER", "WORKER"], [])
    assert key["revoke_time"] is None
    for _ in range(2):
        revoked = milepost("keys", "revoke", key_id, "--output", "json", **store)
        assert revoked.json == {"key_id": key_id, "revoked": True}
    text = milepost("keys", "list", **store).out
    assert re.search(rf"^{key_id}  bench .* revoked 2", text, re.MULTILINE)


def test_created_key_is_shown_to_people_once(store):
    """People read the key, that it is shown only now, and that a worker without grants is idle."""
    words = ("keys", "create", "--subject", "w", "--role", "worker")
    done = milepost(*words, **store)
    assert re.search(r"^key +mp_\w+$", done.out, re.MULTILINE)
    assert "only now" in done.out
    assert done.err.startswith("warning: a WORKER without --function")
    assert milepost(*words, "--function", "video.*", "--function", "audio", **store).err == ""


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--subject", " ", "must not be blank"),
        ("--subject", "a" * 256, "at most 255 characters, found 256"),
        ("--subject", "a\tb", "control characters"),
        ("--subject", "a ", "must not begin or end with a space"),
        ("--function", "a b", "without spaces"),
        ("--function", "a*b", "a final *"),
        ("--function", "", "must be the name of a function"),
        ("--function", "a" * 256, "at most 255 characters"),
        ("--expires-in", "90", "must be a number and one of s, m, h, d"),
        ("--expires-in", "0d", "must be a number and one of s, m, h, d"),
        ("--role", "BOSS", "'BOSS' is not one of 'caller', 'worker', 'admin'"),
    ],
)
def test_wrong_keys_are_refused(store, option, value, text):
    """What a key may not be is said in one line, before anything is stored."""
    words = {"--subject": "bench", "--role": "CALLER", option: value}
    done = milepost("keys", "create", *(w for pair in words.items() for w in pair), **store)
    assert (done.code, done.out) == (USAGE, "")
    [line] = done.err.splitlines()
    assert line.startswith(f"error: Invalid value for '{option}'")
    assert text in line
    assert not Path(store["MILEPOST_DATABASE_URL"].removeprefix("sqlite:///")).exists()


def test_unknown_key_cannot_be_revoked(store):
    """An unknown key has an exit code of its own."""
    done = milepost("keys", "revoke", "nope", "--output", "json", **store)
    assert (done.code, done.error["reason"]) == (NOT_FOUND, "API_KEY_NOT_FOUND")


def test_database_that_is_away_is_one_line():
    """A database that does not answer is exit code 4, without its password."""
    url = "postgresql+psycopg://u:s3cret@127.0.0.1:1/name"
    done = milepost("keys", "list", MILEPOST_DATABASE_URL=url)
    assert (done.code, done.out) == (UNAVAILABLE, "")
    [line] = done.err.splitlines()
    assert line.startswith("error: database: ")
    assert "s3cret" not in line


def test_database_that_is_none_is_one_line(tmp_path):
    """A file that is no database is refused."""
    (tmp_path / "text").write_text("no database, but long enough to be looked at " * 50)
    done = milepost("keys", "list", MILEPOST_DATABASE_URL=f"sqlite:///{tmp_path}/text")
    assert (done.code, done.err) == (REFUSED, "error: database: file is not a database\n")


def test_database_that_was_never_migrated_says_so(postgres):
    """On a PostgreSQL without schema, the command to run is named."""
    postgres.create_database("milepost_cli_empty")
    try:
        url = postgres.url("milepost_cli_empty")
        done = milepost("keys", "list", MILEPOST_DATABASE_URL=url)
        assert (done.code, done.out) == (REFUSED, "")
        assert done.err.endswith("is needed: run milepost migrate\n")
        assert milepost("migrate", MILEPOST_DATABASE_URL=url).code == OK
        assert milepost("keys", "list", MILEPOST_DATABASE_URL=url).code == OK
    finally:
        postgres.drop_database("milepost_cli_empty")


# --- serve ---


def test_serve_runs_until_sigterm(store):
    """The service starts on a new store, logs JSON lines, warns, and ends with exit code 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        **store,
        "MILEPOST_LISTEN": f"0.0.0.0:{port}",
        "MILEPOST_ALLOW_PLAINTEXT": "true",
        "MILEPOST_HTTP_LISTEN": "",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "milepost", "serve"],
        env=environment(settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        lines = []
        try:
            for line in process.stderr:
                lines.append(json.loads(line))
                if lines[-1]["event"] == "serving":
                    process.send_signal(signal.SIGTERM)
        finally:
            process.kill()
    assert process.returncode == OK
    assert lines[0]["level"] == "warning"
    assert "WITHOUT TLS" in lines[0]["event"]
    assert lines[-1]["event"] == "stopped"


@pytest.mark.parametrize("variable", ["MILEPOST_LISTEN", "MILEPOST_HTTP_LISTEN"])
def test_port_in_use_is_one_line(store, variable):
    """A port that somebody else has is named with its variable."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        free = {"MILEPOST_LISTEN": "127.0.0.1:0", "MILEPOST_HTTP_LISTEN": ""}
        done = milepost("serve", **{**store, **free, variable: address})
    assert (done.code, done.out) == (REFUSED, "")
    assert done.err == (f"error: cannot listen on {address} ({variable}): address already in use\n")


# --- ops: a client like any other ---


def test_operation_is_created_and_shown(caller):
    """An operation is created with all that can be said of it, and shown as it stands."""
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
    """What cannot be sent is not sent."""
    done = caller("ops", "create", "x", *arguments)
    assert (done.code, done.out) == (USAGE, "")
    [line] = done.err.splitlines()
    assert line.startswith("error: ")
    assert text in line


def test_service_names_every_field_that_is_wrong(caller):
    """What the service refuses comes with its reason and every violated field."""
    done = caller("ops", "create", " ", "--request-id", "a b", "--output", "json")
    assert (done.code, done.error["reason"]) == (REFUSED, "INVALID_REQUEST")
    assert [item["field"] for item in done.error["violations"]] == ["function", "request_id"]
    done = caller("ops", "get", "nonsense")
    assert done.code == REFUSED
    assert done.err.startswith("error: operation_id: wrong format")


def test_operations_are_listed(caller):
    """The list is newest first, can be filtered, and tells when there is more."""
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
    assert (none.code, none.out) == (OK, "There is no such operation.\n")


@pytest.mark.parametrize("arguments", [("--status", "LOST"), ("--limit", "0"), ("--limit", "x")])
def test_wrong_filters_are_one_line(caller, arguments):
    """A filter that cannot be is refused."""
    done = caller("ops", "list", *arguments)
    assert (done.code, len(done.err.splitlines())) == (USAGE, 1)


def test_operation_is_cancelled_once(caller):
    """An operation is cancelled; a second time the service says why not."""
    id_ = create(caller)
    done = caller("ops", "cancel", id_, "--reason", "changed my mind", "--output", "json")
    assert (done.code, done.json["status"]) == (OK, "CANCELLED")
    done = caller("ops", "cancel", id_)
    assert (done.code, done.out) == (REFUSED, "")
    assert done.err.startswith("error: cannot cancel while CANCELLED")


@pytest.mark.parametrize("command", ["get", "watch", "cancel"])
def test_unknown_operation_has_its_own_exit_code(caller, command):
    """An operation that is not there for the caller is exit code 3."""
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
    """A failed operation is told with its errors, for people on one line."""
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
    """A cancelled operation is no good end either."""
    id_ = create(caller)
    caller("ops", "cancel", id_)
    done = caller("ops", "watch", id_, "--output", "json")
    assert (done.code, done.error["reason"]) == (ENDED_BADLY, "OPERATION_CANCELLED")


def test_watch_gives_up_after_its_timeout(caller):
    """An operation that has not ended when the time is up is exit code 4."""
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
    """No key is a wrong call; a bad key and a missing role are refused by the service."""
    done = caller("ops", "list", "--output", "json", MILEPOST_API_KEY="")
    assert (done.code, done.error["reason"]) == (USAGE, "API_KEY_NEEDED")
    done = caller("ops", "list", "--output", "json", MILEPOST_API_KEY="mp_nonsense")
    assert (done.code, done.error["reason"]) == (DENIED, "UNAUTHENTICATED")
    assert "mp_nonsense" not in done.err
    idle = service.api_key("wally", roles=("WORKER",), functions=())
    done = caller("ops", "list", "--output", "json", "--api-key", idle)
    assert (done.code, done.error["code"]) == (DENIED, "PERMISSION_DENIED")


def test_service_that_is_not_there_is_told_at_once(caller):
    """Where nothing listens, the command does not keep people waiting."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # taken, but nobody listens
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        done = caller("ops", "list", "--address", address)
        assert (done.code, done.out) == (UNAVAILABLE, "")
        assert done.err.startswith(f"error: nothing listens on {address}")
        done = caller("ops", "list", "--address", address, "--output", "json")
        assert done.error["code"] == "UNAVAILABLE"


def test_traceback_only_for_debugging(service):
    """What has happened inside is shown when the log level is debug, and then only."""
    done = subprocess.run(
        [sys.executable, "-m", "milepost", "ops", "list", "--api-key", "mp_x"],
        env=environment({"MILEPOST_LOG_LEVEL": "debug", "MILEPOST_ADDRESS": service.address}),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == DENIED
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: a valid credential")
