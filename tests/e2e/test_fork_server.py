"""Processes of the tests: forked, or started anew where that could make a difference."""

import signal
import subprocess

import pytest

from tests.e2e import fork_server
from tests.e2e.fork_server import PROGRAM, ForkedProcess
from tests.e2e.service import Service
from tests.machine import environment


def test_forked_service_tells_how_it_ended(sqlite_url, tmp_path, request):
    """A forked service runs until a signal ends it; its exit code names that."""
    service = Service(sqlite_url, tmp_path)
    request.addfinalizer(service.kill)
    for number, code in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        service.start()
        process = service.process
        assert isinstance(process, ForkedProcess)
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0)
        process.send_signal(number)
        assert service.end() == process.poll() == code
        process.send_signal(number)


def test_another_environment_is_not_forked(sqlite_url, tmp_path, monkeypatch):
    """A service whose environment could change its libraries imports these with it."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "another")
    with Service(sqlite_url, tmp_path) as service:
        assert isinstance(service.process, subprocess.Popen)


@pytest.mark.parametrize("words", [("version",), ("keys", "list"), ("keys", "lost")], ids=" ".join)
def test_forked_command_does_the_same(words, tmp_path):
    """The output and the exit code of a forked command are those of one that is started anew."""
    settings = environment(database_url=f"sqlite:///{tmp_path / 'milepost.db'}")
    forked = fork_server.run(*words, environment=settings, timeout=60)
    anew = subprocess.run(
        (*PROGRAM, *words), env=settings, capture_output=True, text=True, check=False, timeout=60
    )
    told = forked.returncode, forked.stdout, forked.stderr
    assert told == (anew.returncode, anew.stdout, anew.stderr)
    assert forked.stdout or forked.stderr


def test_command_that_takes_too_long_is_killed(tmp_path):
    """A command that runs beyond its time is killed, and leaves nothing behind."""
    settings = environment(database_url=f"sqlite:///{tmp_path / 'milepost.db'}", http_listen="")
    settings["MILEPOST_LISTEN"] = "127.0.0.1:0"
    with pytest.raises(subprocess.TimeoutExpired, match="serve"):
        fork_server.run("serve", environment=settings, timeout=0.1)
