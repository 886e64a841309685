"""The settings file: its lines, its precedence, and its problems."""

import os

import pytest

from milepost import config
from tests.unit.loaded_settings import entry, problems

pytestmark = pytest.mark.usefixtures("no_settings")


def test_environment_overrides_file_and_default(monkeypatch, settings_file):
    """Each value has its source; the environment overrides the file."""
    settings_file("# comment\nMILEPOST_DRAIN_SECONDS=7\nexport MILEPOST_LOG_LEVEL='debug'\n")
    monkeypatch.setenv("MILEPOST_LOG_LEVEL", "error")
    drain, level, reflection = (
        entry(f"MILEPOST_{name}") for name in ("DRAIN_SECONDS", "LOG_LEVEL", "REFLECTION")
    )
    assert (drain.value, drain.source) == (7.0, "file")
    assert (level.value, level.source) == ("error", "environment")
    assert (reflection.value, reflection.source) == (True, "default")


def test_malformed_line_is_reported_with_other_problems(settings_file, capfd):
    """A malformed line is reported by its number, and does not hide other problems."""
    settings_file("MILEPOST_DRAIN_SECONDS=soon\nthis is not a setting\n")
    first, second = problems()
    assert first.endswith("line 2 is not KEY=VALUE")
    assert second.startswith("MILEPOST_DRAIN_SECONDS: ")
    assert capfd.readouterr() == ("", "")


def test_missing_file_is_a_problem(monkeypatch, tmp_path):
    """A configured settings file must exist."""
    monkeypatch.setenv("MILEPOST_CONFIG_FILE", str(tmp_path / "nowhere"))
    [line] = problems()
    assert line.startswith("MILEPOST_CONFIG_FILE: ")
    assert line.endswith("No such file or directory")


def test_pipe_is_a_problem(monkeypatch, tmp_path):
    """A pipe could be read only once, and settings are read by every process: it is refused."""
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("MILEPOST_CONFIG_FILE", str(tmp_path / "pipe"))
    [line] = problems()
    assert line.endswith("pipe: is a pipe, which can be read only once")


def test_binary_file_is_a_problem(monkeypatch, tmp_path):
    """A settings file is UTF-8 text."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setenv("MILEPOST_CONFIG_FILE", str(tmp_path / "binary"))
    [line] = problems()
    assert line.endswith("is not UTF-8 text")


def test_client_variables_come_from_the_file_too(monkeypatch, settings_file):
    """The environment wins over the settings file; an empty variable counts as unset."""
    settings_file("MILEPOST_ADDRESS=file:1\nmilepost_ca_file=/ca\n")
    assert config.client_value(config.ADDRESS) == "file:1"
    assert config.client_tls_files() == {"ca_file": "/ca"}
    monkeypatch.setenv("MILEPOST_ADDRESS", "environment:1")
    assert config.client_value(config.ADDRESS) == "environment:1"
    shown = {each.name: (each.value, each.source) for each in config.client_entries()}
    assert shown["MILEPOST_ADDRESS"] == ("environment:1", "environment")
    assert shown["MILEPOST_CA_FILE"] == ("/ca", "file")
    monkeypatch.setenv("MILEPOST_ADDRESS", "")
    assert config.client_value(config.ADDRESS) == "file:1"
    assert config.client_value(config.API_KEY) is None
    assert config.warnings() == []


def test_variable_without_a_value_is_a_malformed_line(settings_file):
    """A line that has only the name of a setting does not silently leave its default."""
    settings_file("OTHER\nMILEPOST_REFLECTION\n")
    [problem] = problems()
    assert problem.endswith("line 2 is not KEY=VALUE")


def test_broken_file_is_a_problem_of_the_client_too(settings_file):
    """The command line reads no variable from a settings file that has a broken line."""
    settings_file("MILEPOST_ADDRESS=file:1\nnonsense line\n")
    with pytest.raises(config.SettingsError, match="line 2 is not KEY=VALUE"):
        config.client_value(config.ADDRESS)


@pytest.mark.parametrize(
    ("line", "exposed"),
    [
        ("MILEPOST_API_KEY=mp_x", "MILEPOST_API_KEY"),
        ("MILEPOST_DATABASE_URL=postgresql+psycopg://u:s3cret@h/d", "MILEPOST_DATABASE_URL"),
        ("MILEPOST_WEBHOOK_KEYS=k1:aaaa", "MILEPOST_WEBHOOK_KEYS"),
        ("MILEPOST_DATABASE_URL=sqlite:////var/lib/x.db", None),
        ("MILEPOST_ADDRESS=localhost:7450", None),
    ],
)
def test_secrets_that_every_user_can_read_are_reported(settings_file, tmp_path, line, exposed):
    """A settings file with a secret is reported while every user can read it."""
    settings_file(f"{line}\n")
    file = tmp_path / "settings.env"
    file.chmod(0o644)
    line = f"{file} has {exposed} and every user can read it: chmod o-r {file}"
    assert config.warnings() == ([line] if exposed else [])
    file.chmod(0o640)
    assert config.warnings() == []


def test_typos_are_found(monkeypatch, settings_file):
    """An unknown variable is reported, with the setting that may have been meant."""
    settings_file("MILEPOST_REFLEXION=off\n")
    for name in ("LISTENS", "ADDRESS", "API_KEY", "TEST_POSTGRES_URL"):
        monkeypatch.setenv(f"MILEPOST_{name}", "x")
    assert config.warnings() == [
        "MILEPOST_LISTENS is not a setting; did you mean MILEPOST_LISTEN?",
        (
            "MILEPOST_REFLEXION in MILEPOST_CONFIG_FILE is not a setting;"
            " did you mean MILEPOST_REFLECTION?"
        ),
    ]
