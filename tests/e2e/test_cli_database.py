"""Commands on the database: `migrate`, `cleanup`, `keys`, and `serve` itself."""

import contextlib
import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from milepost.config import without_settings
from milepost.domain.operation import Status, new_operation_id
from milepost.storage.engine import open_engine
from milepost.storage.schema import latest
from milepost.storage.tables import operations
from milepost_client import NotFound, SyncMilepost, Unauthenticated
from tests import factories
from tests.e2e.commands import DENIED, NOT_FOUND, OK, REFUSED, UNAVAILABLE, USAGE, milepost
from tests.e2e.service import Service
from tests.machine import free_port
from tests.waiting import eventually


def is_refused(client: SyncMilepost) -> bool:
    """Return True if the key of the client is valid no more."""
    try:
        client.get(new_operation_id())
    except (NotFound, Unauthenticated) as refusal:
        return isinstance(refusal, Unauthenticated)
    return False


@pytest.fixture
def store(tmp_path: Path) -> dict[str, str]:
    """The settings of an embedded store that does not exist yet."""
    return {"MILEPOST_DATABASE_URL": f"sqlite:///{tmp_path}/new/milepost.db"}


def test_migrate_upgrades_and_downgrades(store):
    """The schema is migrated to the newest revision, to the empty one, and to a given one."""
    assert milepost("migrate", "--output", "json", **store).json == {"revision": latest()}
    base = ("migrate", "--to", "base", "--output", "json")
    done = milepost(*base, **store)
    assert (done.code, done.error["reason"]) == (USAGE, "CONFIRMATION_NEEDED")
    assert milepost("keys", "list", **store).code == OK
    assert milepost(*base, "--remove-everything", **store).json == {"revision": None}
    assert milepost("migrate", "--to", "0001", **store).out == "the schema is at 0001\n"
    done = milepost("migrate", "--to", "nonsense", **store)
    assert (done.code, done.out) == (REFUSED, "")
    assert done.err == f"error: there is no revision nonsense; the newest is {latest()}\n"


def test_schema_is_not_taken_back_under_a_service(database_url, tmp_path):
    """A downgrade is refused while a service runs on the database; an upgrade is not."""
    here = {"MILEPOST_DATABASE_URL": database_url}
    with Service(database_url, tmp_path):
        for revision in ("0001", "base"):
            done = milepost("migrate", "--to", revision, "--remove-everything", **here)
            assert (done.code, done.out) == (REFUSED, "")
            assert done.err.startswith("error: a service runs on this database: stop all its")
        assert milepost("migrate", **here).out == f"the schema is at {latest()}\n"
        assert milepost("keys", "list", **here).code == OK
    # At once after the end of the service: its last sign of life is still fresh.
    assert milepost("migrate", "--to", "0001", **here).out == "the schema is at 0001\n"


def test_killed_service_does_not_hold_the_schema(database_url, tmp_path):
    """A service that was killed needs no override: a while later the schema can be taken back."""
    here = {"MILEPOST_DATABASE_URL": database_url}
    with Service(database_url, tmp_path) as service:
        service.kill()
        assert milepost("migrate", "--to", "0001", **here).out == "the schema is at 0001\n"


@pytest.mark.parametrize(
    "command",
    [
        ("keys", "list"),
        ("keys", "revoke", "0" * 16),
        ("cleanup",),
        ("cleanup", "--dry-run"),
        ("webhooks", "reencrypt"),
        ("migrate", "--to", "base", "--remove-everything"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_mistyped_file_is_not_created(store, tmp_path, command):
    """A command that only works on what is stored names the missing file, and creates nothing."""
    done = milepost(*command, **store)
    assert (done.code, done.out) == (REFUSED, "")
    file = f"{tmp_path}/new/milepost.db"
    assert done.err.startswith(f"error: database: the file {file} does not exist: check ")
    assert list(tmp_path.iterdir()) == []


def test_check_names_a_file_that_does_not_exist_yet(store, tmp_path):
    """check-config --connect warns that the service will create the file, and creates none."""
    done = milepost("check-config", "--connect", **store)
    assert done.code == OK
    assert f"the file {tmp_path}/new/milepost.db does not exist" in done.err
    assert list(tmp_path.iterdir()) == []


def test_file_of_another_program_gets_no_tables(tmp_path):
    """A command that only works on what is stored adds nothing to another SQLite file."""
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE other (id INTEGER)")
    for command in (["keys", "list"], ["cleanup"], ["webhooks", "reencrypt"]):
        done = milepost(*command, MILEPOST_DATABASE_URL=f"sqlite:///{path}")
        assert (done.code, done.out) == (REFUSED, "")
        problem = f"the database has no schema, {latest()} is needed: run milepost migrate"
        assert done.err == f"error: database: {problem}\n"
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("other",)]


def test_clean_up_without_a_service(store):
    """One sweep of the database is previewed and done, and its counts are printed."""
    assert milepost("migrate", **store).code == OK
    old = factories.LONG_AGO + timedelta(days=1)
    rows = [factories.row(status, expire_time=old) for status in Status]
    with open_engine(store["MILEPOST_DATABASE_URL"]).begin() as connection:
        connection.execute(sa.insert(operations), rows)
    preview = milepost("cleanup", "--dry-run", **store)
    assert preview.out == "4 would be purged, 1 would be failed with EXPIRED\n"
    done = milepost("cleanup", "--output", "json", **store).json
    assert done == {
        "dry_run": False,
        "purged_count": 4,
        "failed_count": 1,
        "more_remaining": False,
    }
    assert milepost("cleanup", **store).out == "0 purged, 0 failed with EXPIRED\n"


def test_key_is_created_listed_and_revoked(store):
    """A key is created, shown once, listed without its secret, and revoked, even twice."""
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


def test_quiet_key_is_nothing_but_the_key(store):
    """With --quiet a new key is printed alone, and a list has ids only."""
    words = ("keys", "create", "--subject", "bench", "--role", "caller", "--quiet")
    key = milepost(*words, **store).out
    assert re.fullmatch(r"mp_\w+\n", key)
    key_id = key.split("_")[1]
    assert milepost("keys", "list", "--quiet", **store).out == f"{key_id}\n"
    assert milepost("keys", "revoke", key_id, "--quiet", **store).out == ""
    assert milepost("migrate", "--quiet", **store).out == ""
    assert milepost("cleanup", "--quiet", **store).out == ""


def test_keys_are_created_and_revoked_beside_the_service(service):
    """The commands for keys work on the database of a running service, which is the usual one."""
    url = {"MILEPOST_DATABASE_URL": service.database_url}
    words = ("keys", "create", "--subject", "beside", "--role", "caller", "--quiet")
    key = milepost(*words, **url).out.strip()
    access = {"MILEPOST_ADDRESS": service.address, "MILEPOST_API_KEY": key}
    assert milepost("ops", "list", **access).code == OK
    assert milepost("keys", "revoke", key.split("_")[1], **url).code == OK
    with SyncMilepost(service.address, api_key=key) as client:
        eventually(lambda: is_refused(client), within=20, what="revoked")
    assert milepost("ops", "list", **access).code == DENIED


def test_created_key_is_shown_once(store):
    """The text output of a new key says that it is shown once, and warns of a missing grant."""
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
        ("--subject", "ali\u200bce", "cannot be seen"),
        ("--subject", "\u202eecila", "cannot be seen"),
        ("--function", "a b", "without spaces"),
        ("--function", "a*b", "a final *"),
        ("--function", "", "must be the name of a function"),
        ("--function", "a" * 256, "at most 255 characters"),
        ("--expires-in", "90y", "must be like 90, 90s, 15m, 24h or 7d"),
        ("--expires-in", "0d", "must be at least 1s"),
        ("--role", "BOSS", "'BOSS' is not one of 'caller', 'worker', 'admin'"),
    ],
)
def test_wrong_keys_are_refused(store, option, value, text):
    """Invalid options of a key are reported in one line, before anything is stored."""
    words = {"--subject": "bench", "--role": "CALLER", option: value}
    done = milepost("keys", "create", *(w for pair in words.items() for w in pair), **store)
    assert (done.code, done.out) == (USAGE, "")
    [line] = done.err.splitlines()
    assert line.startswith(f"error: Invalid value for '{option}'")
    assert text in line
    assert not Path(store["MILEPOST_DATABASE_URL"].removeprefix("sqlite:///")).exists()


def test_unknown_key_cannot_be_revoked(store):
    """An unknown key is exit code 3."""
    assert milepost("migrate", **store).code == OK
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


def test_file_that_is_not_a_database_is_one_line(tmp_path):
    """A file that is not a database is refused."""
    (tmp_path / "text").write_text("no database, but long enough to be looked at " * 50)
    done = milepost("keys", "list", MILEPOST_DATABASE_URL=f"sqlite:///{tmp_path}/text")
    cause = "the database file is not one of SQLite (file is not a database)"
    assert (done.code, done.err) == (REFUSED, f"error: database: {cause}\n")


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


def test_only_serve_needs_consent_to_plaintext(store):
    """A command that opens no port works with an address that `serve` refuses, as in the image."""
    settings = {**store, "MILEPOST_LISTEN": "0.0.0.0:7450"}
    for command in (["migrate"], ["cleanup"], ["keys", "list"], ["webhooks", "reencrypt"]):
        assert milepost(*command, **settings).code == OK, command
    done = milepost("serve", **settings)
    assert done.code == USAGE
    assert "MILEPOST_ALLOW_PLAINTEXT" in done.err


def test_serve_runs_until_sigterm(store):
    """The service starts on a new store, logs JSON lines, warns, and ends with exit code 0."""
    settings = {
        **store,
        "MILEPOST_LISTEN": f"0.0.0.0:{free_port()}",
        "MILEPOST_ALLOW_PLAINTEXT": "true",
        "MILEPOST_HTTP_LISTEN": "",
        "MILEPOST_LISTENS": "127.0.0.1:1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "milepost", "serve"],
        env=without_settings() | settings,
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
    assert (lines[1]["event"], lines[1]["level"]) == ("questionable setting", "warning")
    assert lines[1]["problem"].startswith("MILEPOST_LISTENS is not a setting; did you mean")
    assert lines[-1]["event"] == "stopped"


@pytest.mark.parametrize("variable", ["MILEPOST_LISTEN", "MILEPOST_HTTP_LISTEN"])
def test_port_in_use_is_one_line(store, variable):
    """A port in use is reported with its variable."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        free = {"MILEPOST_LISTEN": "127.0.0.1:0", "MILEPOST_HTTP_LISTEN": ""}
        done = milepost("serve", **{**store, **free, variable: address})
    assert (done.code, done.out) == (REFUSED, "")
    assert done.err == (f"error: cannot listen on {address} ({variable}): address already in use\n")
