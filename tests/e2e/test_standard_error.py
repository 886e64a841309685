"""Every line on standard error is one of the service's log, whatever peers send."""

import json
import signal
import socket
import subprocess
import sys

import pytest

from milepost.cli.errors import ExitCode
from tests.e2e.service import Service
from tests.machine import environment
from tests.raw_connection import RawConnection
from tests.waiting import eventually

KEY = "mp_5d4e164f54d51229_secret"
FORGED = '{"event": "operation changed", "level": "info", "timestamp": "t", "principal": "forged"}'
MALFORMED = (
    f"GET / HTTP/1.1\r\nHost: x\r\nAuthoriz\0ation: Bearer {KEY}\r\n\r\n",
    f"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: {KEY}\r\n\r\n",
    f"GET /{KEY}\x01 HTTP/1.1\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: x\r\nA: {KEY * 500}\r\n\r\n",
    f"{KEY}\r\n{FORGED}\r\n\r\n",
)


@pytest.fixture
def own_service(sqlite_url, tmp_path):
    """A service of the test alone."""
    with Service(sqlite_url, tmp_path, forked=False) as service:
        yield service


def exchange(address: str, text: str) -> bytes:
    """Send a text to a port, and return the beginning of the response."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(text.encode("latin-1"))
        return connection.recv(1_000)


def assert_only_log_lines(log: str) -> None:
    """Assert that every line has the fields of a log line, and none has the text of a peer."""
    for line in log.splitlines():
        assert {"event", "level", "timestamp"} <= json.loads(line).keys()
    assert KEY not in log
    assert "forged" not in log


def test_peers_cannot_write_to_the_log(own_service):
    """Debug data of a GOAWAY and malformed HTTP requests leave no text in the log."""
    for code in (0, 1, 2, 11):
        with RawConnection(own_service.address) as connection:
            connection.go_away(code, f"{KEY}\n{FORGED}\n".encode())
            connection.read_for(0.1)
    for text in MALFORMED:
        assert b"400" in exchange(own_service.http_address, text)
    eventually(
        lambda: own_service.log_lines(source="aiohttp.server"), within=5, what="a refusal is logged"
    )
    own_service.client("alice").create()
    own_service.logged(event="operation changed")
    assert_only_log_lines(own_service.log())


@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_service_runs_without_standard_error(sqlite_url, tmp_path, streams):
    """A service whose standard streams are closed, or full, serves and ends with exit code 0."""
    service = Service(sqlite_url, tmp_path)
    service.process = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$0" -m milepost serve {streams}', sys.executable],
        env=environment(
            database_url=sqlite_url, listen=service.address, http_listen=service.http_address
        ),
    )
    service.wait_until_ready()
    for text in MALFORMED:
        exchange(service.http_address, text)
    assert service.client("alice").create().revision == 1
    service.stop()


def test_several_processes_run_without_standard_streams(postgres_url, tmp_path):
    """A supervisor and its processes whose standard streams are closed serve, and end in order.

    A signal that only ends other programs lets them drain.
    """
    service = Service(postgres_url, tmp_path)
    service.process = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$0" -m milepost serve <&- >&- 2>&-', sys.executable],
        env=environment(
            database_url=postgres_url,
            listen=service.address,
            http_listen=service.http_address,
            processes="2",
        ),
    )
    service.wait_until_ready()
    assert service.client("alice").create().revision == 1
    service.process.send_signal(signal.SIGUSR1)
    assert service.end() == 0


def test_reader_of_standard_error_may_end(sqlite_url, tmp_path):
    """A service whose pipe for the log has lost its reader goes on."""
    service = Service(sqlite_url, tmp_path)
    service.process = subprocess.Popen(
        [sys.executable, "-m", "milepost", "serve"],
        env=environment(
            database_url=sqlite_url, listen=service.address, http_listen=service.http_address
        ),
        stderr=subprocess.PIPE,
    )
    service.wait_until_ready()
    assert service.process.stderr is not None
    service.process.stderr.close()
    assert service.client("alice").create().revision == 1
    service.stop()


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full"])
def test_command_without_standard_error_keeps_its_exit_code(streams):
    """A command that cannot write its error ends with the exit code of the error."""
    command = ["/bin/sh", "-c", f'exec "$0" -m milepost nonsense {streams}', sys.executable]
    assert subprocess.run(command, env=environment(), check=False).returncode == ExitCode.USAGE
