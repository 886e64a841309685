"""The command line: help, errors, versions and check-config."""

import re
import subprocess
import sys

import pytest

from milepost.config import without_settings
from tests.e2e.commands import DENIED, MAX_WAIT_S, OK, USAGE, milepost


def test_help_lists_commands_and_exit_codes():
    """Without arguments, the help lists the commands and the exit codes."""
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
    ("ops", "result"),
    ("ops", "cancel"),
    ("ops", "delete"),
    ("webhooks", "secret"),
    ("webhooks", "rotate"),
    ("webhooks", "deliveries"),
    ("webhooks", "redeliver"),
    ("webhooks", "test"),
    ("webhooks", "reencrypt"),
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
    """With --output json, invalid arguments are reported as one document too."""
    done = milepost("ops", "get", "--output", "json")
    assert (done.code, done.out) == (USAGE, "")
    assert (done.error["reason"], done.error["code"]) == ("USAGE", "INVALID_ARGUMENT")
    assert "Missing argument 'ID'" in done.error["message"]
    for words in (("--output=json",), ("-o", "json"), ("-ojson",)):
        assert milepost("keyz", *words).error["reason"] == "USAGE"


def test_version_is_that_of_the_package():
    """The version is printed as text and as JSON."""
    assert milepost("version").out.startswith("milepost 0.")
    assert milepost("--version").out == milepost("version").out
    assert milepost("version", "--output", "json").json["version"].startswith("0.")


def completions(script: str, *words: str) -> list[str]:
    """Return what bash offers for the last word, after it has read the script."""
    program = f"""
milepost() {{ {sys.executable} -m milepost "$@"; }}
env() {{ while [[ $1 == *=* ]]; do local -x "$1"; shift; done; "$@"; }}  # `env` runs no functions
source /dev/stdin <<'END'
{script}
END
complete -p milepost >/dev/null
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_milepost_completion milepost
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "-c", program, "bash", *words],
        env=without_settings(),
        capture_output=True,
        text=True,
        check=True,
        timeout=MAX_WAIT_S,
    )
    return done.stdout.split()


def test_bash_completes_commands_and_values():
    """The script of the program makes bash complete commands, options and values."""
    script = milepost(_MILEPOST_COMPLETE="source_bash").out
    assert completions(script, "milepost", "ops", "res") == ["result"]
    assert completions(script, "milepost", "ops", "list", "--sin") == ["--since"]
    events = completions(script, "milepost", "ops", "create", "--callback-event", "")
    assert "operation.failed" in events


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_too(shell):
    """The program prints a script for zsh and for fish, and answers their questions."""
    assert "_MILEPOST_COMPLETE" in milepost(_MILEPOST_COMPLETE=f"source_{shell}").out
    answer = milepost(
        _MILEPOST_COMPLETE=f"complete_{shell}",
        _TYPER_COMPLETE_ARGS="milepost ops list --status ",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert "CANCELLED" in answer.out


@pytest.mark.parametrize("command", [("--help",), ("version",), ("check-config",)], ids=" ".join)
def test_light_commands_import_nothing_heavy(command):
    """Commands without service and database do not import the libraries of these."""
    code = (
        "import sys; from milepost.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print(*{'grpc', 'sqlalchemy', 'alembic', 'aiohttp'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        env=without_settings(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == ""


def test_check_config_shows_what_is_in_force(tmp_path):
    """check-config shows value, source and meaning of settings, masks secrets and reports typos."""
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
    assert done.json["warnings"] == [
        "MILEPOST_LISTEM is not a setting; did you mean MILEPOST_LISTEN?"
    ]
    assert (done.code, done.json["problems"]) == (OK, [])
    assert "MILEPOST_ADDRESS" in shown
    assert milepost("check-config", "--quiet", **settings).out == ""
    text = milepost("check-config", **settings)
    assert "s3cret" not in text.out + text.err + done.out + done.err
    assert re.search(r"MILEPOST_DRAIN_SECONDS +7 +file +Time for", text.out)
    typo, unreachable = text.err.splitlines()
    assert typo == "warning: MILEPOST_LISTEM is not a setting; did you mean MILEPOST_LISTEN?"
    assert unreachable.startswith("warning: database: ")


def test_check_config_reports_every_problem():
    """Problems are one line each, all at once, and exit code 2; `serve` says the same."""
    settings = {"MILEPOST_LISTEN": "0.0.0.0:1", "MILEPOST_LOG_LEVEL": "loud"}
    checked, served = milepost("check-config", **settings), milepost("serve", **settings)
    assert (checked.code, served.code) == (USAGE, USAGE)
    assert checked.err == served.err
    first, second = checked.err.splitlines()
    assert first.startswith("error: MILEPOST_LISTEN: is reachable from other machines without TLS")
    assert second.startswith("error: MILEPOST_LOG_LEVEL: ")
    done = milepost("serve", "--output", "json", **settings)
    assert (done.error["reason"], len(done.error["problems"])) == ("INVALID_SETTINGS", 2)


def test_traceback_only_for_debugging(service):
    """A traceback is printed only if the log level is debug."""
    done = subprocess.run(
        [sys.executable, "-m", "milepost", "ops", "list", "--api-key", "mp_x"],
        env=without_settings()
        | {"MILEPOST_LOG_LEVEL": "debug", "MILEPOST_ADDRESS": service.address},
        capture_output=True,
        text=True,
        check=False,
        timeout=MAX_WAIT_S,
    )
    assert done.returncode == DENIED
    assert "Traceback" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: the service does not accept the credential")
