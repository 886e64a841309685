"""The HTTP port: who may reach it, over what, and who waits for whom."""

import json
import shutil
import ssl
import time

import pytest
from cryptography import x509

from milepost.web import connections
from tests.certificates import SERVER, Authority
from tests.e2e.http.exchange import Http, RawHttp, http_of
from tests.e2e.service import Service
from tests.machine import free_port
from tests.waiting import eventually

OPERATIONS = "/v1/operations"
PAGE = "https://console.example"
CREATE = {"function": "video.transcode"}
SOON_S = 20.0


@pytest.fixture
def allowing(sqlite_url, tmp_path):
    """Start services that allow these origins, which end with the test."""
    started = []

    def start(origins: str) -> Service:
        service = Service(sqlite_url, tmp_path, http_origins=origins)
        service.start()
        started.append(service)
        return service

    yield start
    for service in started:
        service.kill()


def test_no_page_of_another_origin_reads_responses(any_service, http_alice):
    """By default no response allows an origin, and a change from another page is refused."""
    answer = http_alice("GET", OPERATIONS, Origin=PAGE)
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]
    asked = http_alice("OPTIONS", OPERATIONS, Origin=PAGE, Access_Control_Request_Method="POST")
    assert asked.refusal == (405, "")
    assert http_alice("POST", OPERATIONS, CREATE, Origin=PAGE).refusal == (403, "")
    own = http_alice("POST", OPERATIONS, CREATE, Origin=any_service.url)
    assert own.status == 202


def test_listed_origins_read_responses(allowing):
    """Pages of the listed origins may use the API, and read its headers; others may not."""
    service = allowing(f"{PAGE}, https://other.example:8443")
    http = http_of(service, service.client("alice"))
    asked = http("OPTIONS", OPERATIONS, Origin=PAGE, Access_Control_Request_Method="POST")
    assert asked.status == 204
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert "Idempotency-Key" in asked.headers["access-control-allow-headers"]
    created = http("POST", OPERATIONS, CREATE, Origin=PAGE)
    assert created.status == 202
    assert created.headers["vary"] == "Origin"
    assert "Location" in created.headers["access-control-expose-headers"]
    missing = http("GET", f"{OPERATIONS}/op_1", Origin=PAGE)
    assert missing.headers["access-control-allow-origin"] == PAGE
    foreign = http("POST", OPERATIONS, CREATE, Origin="https://evil.example")
    assert foreign.refusal == (403, "")
    assert "access-control-allow-origin" not in foreign.headers
    assert "access-control-allow-credentials" not in created.headers
    http.close()


def test_any_origin_can_be_allowed(allowing):
    """With `*` every page may use the API."""
    service = allowing("*")
    http = http_of(service, service.client("alice"))
    created = http("POST", OPERATIONS, CREATE, Origin="https://anywhere.example")
    assert created.headers["access-control-allow-origin"] == "https://anywhere.example"
    http.close()


@pytest.mark.parametrize("path", [OPERATIONS, f"{OPERATIONS}/op_1:watch", "/openapi.json"])
def test_api_is_unavailable_until_the_replica_serves(tmp_path, path):
    """A replica that starts answers 503, which proxies and clients repeat, and not 404."""
    service = Service("postgresql+psycopg://milepost@127.0.0.1:1/milepost", tmp_path)
    service.start(ready=False)
    try:
        eventually(lambda: service.log_lines(event="not ready"), within=SOON_S, what="waiting")
        with RawHttp(service) as raw:
            raw.send("GET", path)
            assert raw.status() == 503
            headers = raw.headers()
            assert headers["retry-after"] == "1"
            assert headers["content-type"].startswith("application/problem+json")
            assert headers["connection"] == "close"
        assert service.probe("/healthz")[0] == 200
    finally:
        service.stop()


def test_encrypted_port_follows_its_certificate(tmp_path):
    """A renewed certificate is used from the next connection on, and a broken one never."""
    authority, later = Authority(tmp_path), Authority(tmp_path)
    pair, renewed = authority.certify(*SERVER), later.certify(*SERVER)
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    shutil.copy(pair.certificate, certificate)
    shutil.copy(pair.key, key)
    service = Service(
        f"sqlite:///{tmp_path}/tls.db",
        tmp_path,
        tls_cert_file=str(certificate),
        tls_key_file=str(key),
        http_tls="true",
        probes_listen=(probes := f"127.0.0.1:{free_port()}"),
    )
    api, service.http_address = service.http_address, probes
    service._settings["http_listen"] = api
    with service:
        alice = service.api_key("alice")

        def get(trusted: Authority) -> int:
            service.http_address = api
            http = Http(service, f"Bearer {alice}", trusted.trusted())
            service.http_address = probes
            try:
                return http("GET", OPERATIONS).status
            finally:
                http.close()

        assert get(authority) == 200
        shutil.copy(renewed.certificate, certificate)  # half of a pair
        assert get(authority) == 200
        shutil.copy(renewed.key, key)
        assert get(later) == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            get(authority)
        assert not service.log_lines(event="TLS files not usable")  # it was half for a moment
        assert service.probe("/readyz")[0] == 200
        assert service.probe(OPERATIONS)[0] == 404  # the port of the probes has no API


def test_removed_authority_is_trusted_no_more(tmp_path):
    """Client certificates of an authority whose file was replaced are refused at once."""
    server, old, new = (Authority(tmp_path) for _ in range(3))
    pair = server.certify(*SERVER)
    trusted = tmp_path / "clients.pem"
    shutil.copy(old.file, trusted)
    principals = {"dns:encoder.example.com": {"subject": "encoder", "roles": ["CALLER"]}}
    service = Service(
        f"sqlite:///{tmp_path}/mtls.db",
        tmp_path,
        tls_cert_file=str(pair.certificate),
        tls_key_file=str(pair.key),
        tls_client_ca_file=str(trusted),
        mtls_principals=json.dumps(principals),
        http_tls="true",
        probes_listen=(probes := f"127.0.0.1:{free_port()}"),
    )
    api, service.http_address = service.http_address, probes
    service._settings["http_listen"] = api
    with service:

        def get(by: Authority) -> int:
            context = server.trusted()
            own = by.certify(x509.DNSName("encoder.example.com"))
            context.load_cert_chain(own.certificate, own.key)
            service.http_address = api
            http = Http(service, None, context)
            service.http_address = probes
            try:
                return http("GET", OPERATIONS).status
            finally:
                http.close()

        assert get(old) == 200
        shutil.copy(new.file, trusted)
        assert get(new) == 200
        with pytest.raises(OSError):  # noqa: PT011 - an alert of TLS, or a reset before it
            get(old)


def test_api_is_off_where_a_network_would_see_credentials(sqlite_url, tmp_path):
    """On an address of all interfaces in plain text, the HTTP port has probes only."""
    service = Service(sqlite_url, tmp_path)
    service._settings["http_listen"] = service.http_address.replace("127.0.0.1", "0.0.0.0")  # noqa: S104
    with service:
        assert service.probe("/readyz")[0] == 200
        assert service.probe(OPERATIONS)[0] == 404
        assert service.probe("/openapi.json")[0] == 404


def test_rates_are_shared_with_grpc(sqlite_url, tmp_path):
    """Calls over HTTP and over gRPC draw on the same rate; 429 says when to come back."""
    with Service(sqlite_url, tmp_path, lists_per_minute="4") as service:
        alice = service.client("alice")
        http = http_of(service, alice)
        for _ in range(2):
            assert http("GET", OPERATIONS).status == 200
            alice.call("ListOperations")
        answer = http("GET", OPERATIONS)
        assert answer.refusal == (429, "RATE_LIMITED")
        assert int(answer.headers["retry-after"]) >= 1
        http.close()


def test_slow_callers_do_not_take_the_place_of_others(any_service, alice):
    """Silent connections, and bodies that do not arrive, leave room for calls."""
    auth = f"Authorization: Bearer {alice.key}"
    length = ("Content-Type: application/json", "Content-Length: 100")
    slow = [RawHttp(any_service) for _ in range(connections.MAX_CONNECTIONS + 50)]
    for n, raw in enumerate(slow):
        if n % 3 == 1:
            raw.socket.sendall(b"POST /v1/operations HTTP/1.1\r\nHost: ")
        elif n % 3 == 2:
            raw.send("POST", OPERATIONS, auth, *length, body=b"{")
    http = http_of(any_service, alice)
    started = time.monotonic()
    assert http("POST", OPERATIONS, CREATE).status == 202
    assert time.monotonic() - started < connections.MAX_REQUEST_S
    http.close()
    for raw in slow:
        raw.__exit__(None, None, None)


def test_body_that_does_not_arrive_is_refused(any_service, alice):
    """A body that takes too long is 408, and its connection ends."""
    auth = f"Authorization: Bearer {alice.key}"
    with RawHttp(any_service) as raw:
        raw.send("POST", OPERATIONS, auth, "Content-Length: 9", body=b"{")
        assert raw.status() == 408


def test_draining_replica_answers_503(own_service):
    """While it drains, a replica refuses a call on an open connection, and closes that."""
    alice = own_service.client("alice")
    operation = alice.create()
    http = http_of(own_service, alice)
    auth = f"Authorization: Bearer {alice.key}"
    with RawHttp(own_service) as late, RawHttp(own_service) as waiting:
        late.send("GET", f"{OPERATIONS}/{operation.id}", auth)
        assert late.status() == 200
        late.body()
        late.send("POST", OPERATIONS, auth, "Content-Type: application/json", "Content-Length: 21")
        wait = f"{OPERATIONS}/{operation.id}:wait"
        waiting.send("POST", wait, auth)
        eventually(
            lambda: own_service.metric("milepost_rpcs_running") == 2, within=10, what="both run"
        )
        own_service.process.terminate()
        assert waiting.status() == 200  # the wait is answered now
        late.socket.sendall(b'{"function": "video"}')
        assert late.status() == 503
        headers = late.headers()
        assert headers["connection"] == "close"
        assert int(headers["retry-after"]) >= 1
        assert own_service.end() == 0
    http.close()


def test_api_describes_itself(any_service):
    """The description of the API is open to every caller."""
    status, text = any_service.probe("/openapi.json")
    assert status == 200
    assert json.loads(text)["openapi"] == "3.1.0"
