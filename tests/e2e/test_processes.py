"""Several processes on one port: calls reach all of them, and they are one service to operators."""

import http.client
import json
import re
import socket
import uuid
from contextlib import closing

import psutil
import pytest

from tests.e2e import fork_server
from tests.e2e.commands import REFUSED, USAGE
from tests.e2e.http.protocol import path_of
from tests.e2e.processes import (
    MAX_CHANNELS,
    PROCESSES,
    create_on_new_connections,
    is_free,
    serving,
    wait_until_all_ready,
)
from tests.e2e.rpcs import BY_METHOD
from tests.e2e.service import START_SECONDS, STOP_SECONDS, Service
from tests.machine import environment, free_port
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(600)  # most tests start up to three processes

CREATED = "milepost_transitions_total"


@pytest.fixture(scope="module")
def service(postgres_copies, postgres, tmp_path_factory):
    """A service of two processes with the API over HTTP, both ready, which the tests share."""
    name = postgres_copies.take()
    folder = tmp_path_factory.mktemp("processes")
    api = f"127.0.0.1:{free_port()}"
    service = Service(postgres.url(name), folder, processes=str(PROCESSES), http_listen=api)
    service._settings["probes_listen"] = service.http_address
    with service:
        wait_until_all_ready(service)
        yield service
    postgres_copies.drop(name)


def serve(*arguments, **settings):
    """Run `milepost serve`, which is expected to refuse; return its end."""
    return fork_server.run(
        "serve", *arguments, environment=environment(**settings), timeout=STOP_SECONDS
    )


def processes_of_creates(service):
    """Return the numbers of the processes that logged a create."""
    lines = service.log_lines(event="operation changed", transition="create")
    return {line["process"] for line in lines}


def test_calls_reach_every_process(service):
    """Connections are spread over all processes, and each log line says which one wrote it."""
    alice = service.client("alice")
    for _ in range(MAX_CHANNELS):
        create_on_new_connections(service, alice, 1)
        if processes_of_creates(service) == {1, PROCESSES}:
            break
    assert processes_of_creates(service) == {1, PROCESSES}
    assert {line["process"] for line in service.log_lines(event="serving")} == {1, PROCESSES}


def test_api_over_http_reaches_every_process(service):
    """The processes share the port of the API over HTTP, which has no page of one of them."""
    api = service.logged(event="supervising")["http_api"]
    key = service.api_key(f"alice-{uuid.uuid4().hex}")
    path = path_of(BY_METHOD["CreateOperation"])
    assert path is not None

    def answer(method, path, body=None):
        with closing(http.client.HTTPConnection(api, timeout=5)) as connection:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()

    found = set()
    for _ in range(MAX_CHANNELS):
        status, body = answer("POST", path.pattern, json.dumps({"function": "test.http"}))
        assert status == http.HTTPStatus.ACCEPTED, body
        name = json.loads(body)["id"]
        line = service.logged(event="operation changed", transition="create", operation_id=name)
        found.add(line["process"])
        if len(found) == PROCESSES:
            break
    assert found == {1, PROCESSES}
    assert answer("GET", "/metrics")[0] == http.HTTPStatus.NOT_FOUND
    assert not is_free(api)


def test_api_over_http_needs_another_port_for_the_probes(postgres_url):
    """The API over HTTP is refused on the port of the probes, with the remedy."""
    done = serve("--processes", "2", database_url=postgres_url, http_api="true")
    assert done.returncode == USAGE
    assert done.stderr.startswith("error: MILEPOST_HTTP_API: needs MILEPOST_PROBES_LISTEN with")


def test_metrics_add_up(service):
    """The one page counts the calls of all processes, also of those that have ended since."""
    alice = service.client("alice")
    method = "milepost.v1.OperationService/CreateOperation"

    def counts():
        return (
            service.metric(CREATED, transition="create"),
            service.metric("milepost_rpc_duration_seconds_count", method=method, code="OK"),
        )

    before = counts()
    create_on_new_connections(service, alice, MAX_CHANNELS)
    everything = tuple(count + MAX_CHANNELS for count in before)
    eventually(lambda: counts() == everything, within=START_SECONDS, what="counted")
    victim = next(iter(serving(service).values()))
    victim.kill()
    service.logged(event="process ended", pid=victim.pid)
    assert counts() == everything
    wait_until_all_ready(service)
    assert counts() == everything
    assert service.metric("milepost_process_restarts_total") == 1


def test_pages(service):
    """The supervisor serves the probes; a process has no HTTP port of its own."""
    assert service.probe("/healthz") == (200, '{"status": "alive"}')
    assert service.probe("/readyz") == (200, '{"status": "ready"}')
    line = service.logged(event="supervising")
    assert (line["processes"], line["probes_listen"]) == (PROCESSES, service.http_address)
    ports = {
        each.laddr.port
        for process in serving(service).values()
        for each in process.net_connections(kind="tcp")
        if each.status == "LISTEN"
    }
    shared = (line["listen"], line["http_api"])
    assert ports == {int(address.rpartition(":")[2]) for address in shared}


def test_supervisor_has_no_connection_to_the_database(service):
    """The supervisor holds its HTTP port, and neither gRPC connections nor the database."""
    connections = psutil.Process(service.process.pid).net_connections(kind="tcp")
    assert {each.status for each in connections} <= {"LISTEN", "NONE", "CLOSE"}


def test_not_ready_without_a_database(postgres, tmp_path):
    """Without its database no process is ready; one waits, and the others are not started yet."""
    service = Service(postgres.url("milepost_not_there"), tmp_path, processes=str(PROCESSES))
    service.start(ready=False)
    try:
        eventually(
            lambda: service.log_lines(event="not ready"), within=START_SECONDS, what="waiting"
        )

        def reason():
            status, body = service.probe("/readyz")
            return status == 503 and json.loads(body)["reason"]

        cause = "the database does not exist on the server"
        eventually(lambda: reason() == cause, within=5, what="the reason")
        assert len(serving(service)) == 1
    finally:
        service.stop()


def test_embedded_store_is_refused(tmp_path):
    """Several processes on SQLite are refused, as an option and as a setting, with the remedy."""
    url = f"sqlite:///{tmp_path / 'milepost.db'}"
    for done in (
        serve("--processes", "2", database_url=url),
        serve(database_url=url, processes="2"),
    ):
        assert done.returncode == USAGE
        assert done.stderr == (
            "error: MILEPOST_PROCESSES: must be 1 with the embedded store, which one process"
            " serves: several processes need PostgreSQL in MILEPOST_DATABASE_URL (found '2')\n"
        )
    assert not (tmp_path / "milepost.db").exists()


@pytest.mark.parametrize("number", ["0", "-1", "129", "two", "1.5"])
def test_impossible_number_is_refused(postgres_url, number):
    """A number of processes outside of 1 to 128 is refused with one line."""
    done = serve("--processes", number, database_url=postgres_url)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert len(done.stderr.splitlines()) == 1
    assert re.match("error: .*processes", done.stderr, re.IGNORECASE)


def test_invalid_assignment_is_refused():
    """The option that the supervisor gives its processes is refused with another value."""
    done = serve("--replica", "1")
    assert done.returncode == USAGE
    assert "Traceback" not in done.stderr


def test_port_of_another_process_is_refused(postgres_url):
    """A port on which any process listens is refused, even if that one shares its port."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = serve("--processes", "2", database_url=postgres_url, listen=address)
    assert done.returncode == REFUSED
    assert done.stderr == (
        f"error: cannot listen on {address} (MILEPOST_LISTEN): address already in use\n"
    )


@pytest.mark.parametrize("arguments", [(), ("--processes", "2")])
def test_port_of_the_processes_is_refused_to_others(service, arguments):
    """No other service can join the port, whether it shares its own or not."""
    done = serve(
        *arguments,
        database_url=service.database_url,
        listen=service.address,
        http_listen=f"127.0.0.1:{free_port()}",
    )
    assert done.returncode == REFUSED
    assert f"cannot listen on {service.address}" in done.stderr


def test_port_is_held_while_no_process_listens(postgres, tmp_path):
    """The port is refused to others from the beginning, before a process listens."""
    service = Service(postgres.url("milepost_not_there"), tmp_path, processes=str(PROCESSES))
    service.start(ready=False)
    try:
        eventually(
            lambda: service.log_lines(event="not ready"), within=START_SECONDS, what="waiting"
        )
        assert not is_free(service.address)
    finally:
        service.stop()
    assert is_free(service.address)


def test_problem_at_the_start_is_reported_once(postgres_url, tmp_path):
    """A setting that only a process can find wrong ends the service, with one error."""
    keys = tmp_path / "keys"
    keys.write_text("not a key", encoding="ascii")
    addresses = {
        "listen": f"127.0.0.1:{free_port()}",
        "http_listen": f"127.0.0.1:{free_port()}",
    }
    done = serve(
        "--processes", "3", database_url=postgres_url, webhook_keys_file=str(keys), **addresses
    )
    assert done.returncode == USAGE
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: MILEPOST_WEBHOOK_KEYS_FILE: ")
    assert done.stderr.endswith(errors[0] + "\n")
    assert done.stderr.count("process started") == 1
