"""Services of the tests: forked, or started anew where that could make a difference."""

import signal
import subprocess

import pytest

from tests.e2e.fork_server import ForkedProcess
from tests.e2e.service import Service


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
