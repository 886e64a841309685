"""The programs that some tests need."""

import socket

import pytest

from tests.programs import Program, listens

VARIABLE = "MILEPOST_TEST_SOMETHING"
MISSING = Program(command="mp-no-such-program", variable=VARIABLE, absence="it is not installed")


def test_program_that_is_there(tmp_path):
    """A program is found by its name on the search path, and by its file if that was built."""
    file = tmp_path / "built"
    file.touch(mode=0o755)
    for command, path in (("sh", "/sh"), (file, str(file))):
        program = Program(command=command, variable=VARIABLE, absence="")
        assert program.require().endswith(path)


def test_missing_program_skips_its_test_loudly(monkeypatch):
    """Without its program a test is skipped, and the reason says so."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert MISSING.path() is None
    with pytest.raises(pytest.skip.Exception, match=r"^it is not installed: this is UNTESTED$"):
        MISSING.require()


def test_missing_program_that_is_demanded_is_a_failure(monkeypatch):
    """A variable makes the absence of a program a failure."""
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(AssertionError, match="it is not installed"):
        MISSING.require()


def test_listens():
    """An address listens as long as its socket is open."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert listens(address)
    assert not listens(address)
