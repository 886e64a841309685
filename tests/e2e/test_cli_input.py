"""Wrong input: each command answers every value of every option with one sentence."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from milepost.cli import app
from milepost.config import without_settings
from tests.e2e.commands import MAX_WAIT_S, OK, REFUSED, USAGE

NESTED: Final = '{"a":' * 90 + "1" + "}" * 90
VALUES: Final = {
    "empty": "",
    "blank": " ",
    "huge": "x" * 100_000,
    "not UTF-8": "\udcff",
    "other characters": "ü\u202e\u200b\n\x1b[31m",
    "a word": "nonsense",
    "not a number": "nan",
    "negative": "-1",
    "a large number": "9" * 30,
    "a large duration": "999999999d",
    "a date out of range": "0001-01-01T00:00+14:00",
    "broken JSON": "{",
    "nested": NESTED,
    "nested deeper": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "half a character": '{"a": "\\ud800"}',
    "large metadata": json.dumps({"a": "x" * 90_000}),
    "missing file": "@/nowhere/at/all",
    "folder": "@/",
    "binary file": f"@{sys.executable}",
}
REQUIRED: Final = {
    "FUNCTION": "video.transcode",
    "ID": "op_000000000000000000000000",
    "KEY_ID": "0000000000000000",
    "URL": "https://example.com/",
    "subject": "bench",
    "role": "caller",
}
"""Valid values of required parameters."""
COMMAND: Final[Any] = typer.main.get_command(app)
"""The command line, built once: typer takes longer to build it than most commands take."""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """A function that runs a command in this process, as a caller and on a database of its own."""
    for name in [name for name in os.environ if name.startswith("MILEPOST_")]:
        monkeypatch.delenv(name)
    # The program sets it for its process. Other tests run in this one too, and their services are
    # forked only while the environment stays as it was.
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    monkeypatch.setenv("MILEPOST_ADDRESS", service.address)
    monkeypatch.setenv("MILEPOST_API_KEY", service.api_key("input", roles=("CALLER",)))
    monkeypatch.setenv("MILEPOST_DATABASE_URL", f"sqlite:///{tmp_path}/milepost.db")

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            COMMAND(list(words))
        written = capfd.readouterr()
        return int(end.value.code or 0), written.out, written.err

    return run


def commands(group: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Return every command with its names."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)
        else:
            yield (*names, name), command


def valid_words(command: Any, *, without: str) -> list[str]:
    """Return valid values for the required parameters of a command."""
    words: list[str] = []
    for parameter in command.params:
        if parameter.required and parameter.name != without:
            is_option = parameter.param_type_name == "option"
            value = REQUIRED[parameter.name if is_option else parameter.metavar]
            words += [parameter.opts[0], value] if is_option else [value]
    return words


PARAMETERS: Final = [
    pytest.param(names, command, parameter, id=f"{' '.join(names)} {parameter.opts[0]}")
    for names, command in commands(COMMAND)
    for parameter in command.params
    # The demo hashes any folder that it is given; its tests have the others.
    if not getattr(parameter, "is_flag", False) and parameter.name not in {"folder", "help"}
]


def test_every_command_is_tried():
    """The table has every command that takes values."""
    tried = " ".join(str(parameter.id) for parameter in PARAMETERS)
    for name in ("migrate --to", "keys create --subject", "ops list --since", "webhooks test url"):
        assert name in tried


@pytest.mark.parametrize(("names", "command", "parameter"), PARAMETERS)
def test_wrong_values_are_one_sentence(run, names, command, parameter):
    """With every value, the command succeeds or says in one line what is wrong."""
    is_option = parameter.param_type_name == "option"
    if names == ("serve",):  # with a valid value, it would serve
        values = {"a word": "nonsense"}
    elif names == ("demo",) and parameter.name == "api_key":  # it is not used without --address
        values = {}
    else:
        values = VALUES
    for kind, value in values.items():
        given = [f"{parameter.opts[0]}={value}"] if is_option else ["--", value]
        words = valid_words(command, without=parameter.name)
        code, _, err = run(*names, *words, *given)
        assert (code == OK) == (err == "" or err.startswith("warning: ")), (kind, err)
        if code != OK:
            [line] = err.splitlines()
            assert line.startswith("error: ")
            assert "Error: " not in line, (kind, line)
            assert len(line) < 2000, kind
            assert line.isprintable(), kind


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("migrate", "--to", ""), "'' must be a revision such as 0001, head or base"),
        (("migrate", "--to", "@"), "'@' must be a revision such as 0001, head or base"),
        (("ops", "create", "x", "--metadata", NESTED), "nested too deep"),
        (("ops", "create", "x", "--metadata", '{"a": "\\ud800"}'), "is not UTF-8 text"),
        (("ops", "get", "\udcff"), "'\\udcff' is not UTF-8 text"),
        (("keys", "create", "--subject", "\udcff", "--role", "caller"), "control characters"),
    ],
)
def test_known_cases_are_wrong_usage(run, words, sentence):
    """Values that no service can take are wrong usage, exit code 2."""
    code, out, err = run(*words)
    assert (code, out) == (USAGE, "")
    assert sentence in err


@pytest.mark.parametrize("variable", ["MILEPOST_ADDRESS", "MILEPOST_API_KEY", "MILEPOST_CA_FILE"])
@pytest.mark.parametrize("value", ["\udcff", " ", "/", "two words", "x" * 100_000])
def test_wrong_variables_are_one_sentence(run, monkeypatch, variable, value):
    """A wrong variable of the client is one line too."""
    monkeypatch.setenv(variable, value)
    code, _, err = run("ops", "list")
    assert code != OK
    [line] = err.splitlines()
    assert "Error: " not in line


def test_settings_file_that_cannot_be_read_is_one_sentence(run, monkeypatch, tmp_path):
    """A settings file that is missing, a folder, or not text, is named with the reason."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "words").write_text("some words\n")
    monkeypatch.delenv("MILEPOST_API_KEY")
    for name, problem in {
        "missing": "No such file or directory",
        ".": "Is a directory",
        "binary": "is not UTF-8 text",
        "words": "line 1 is not KEY=VALUE",
    }.items():
        monkeypatch.setenv("MILEPOST_CONFIG_FILE", str(tmp_path / name))
        for words in (("ops", "list"), ("keys", "list"), ("check-config", "-q")):
            code, _, err = run(*words)
            assert (code, len(err.splitlines())) == (USAGE, 1)
            assert problem in err


# --- standard streams, in processes of their own ---


def in_shell(script: str) -> tuple[int, str]:
    """Run a line of bash in which `milepost` is the program; return exit code and errors."""
    program = f'milepost() {{ "{sys.executable}" -m milepost "$@"; }}\nset -o pipefail\n{script}'
    done = subprocess.run(
        ["bash", "-c", program],
        env=without_settings(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=MAX_WAIT_S,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("script", "code", "errors"),
    [
        ("milepost check-config --output json | true", REFUSED, ""),
        ("milepost version >&-", OK, ""),
        ("milepost nonsense 2>&-", USAGE, ""),
        ("milepost version >/dev/full", REFUSED, "error: No space left on device\n"),
    ],
)
def test_output_that_cannot_be_written_ends_quietly(script, code, errors):
    """A reader that ends first, a closed stream and a full disk never cause a traceback."""
    assert in_shell(script) == (code, errors)


def test_closed_input_is_one_sentence():
    """A closed standard input is an empty one."""
    code, errors = in_shell("milepost ops create x --api-key mp_x --metadata @- <&-")
    assert code == USAGE
    assert "standard input is not JSON" in errors
    assert len(errors.splitlines()) == 1
