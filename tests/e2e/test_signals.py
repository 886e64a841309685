"""Signals to the service: SIGHUP reloads, and the others let it drain."""

import shutil
import signal
import socket
import ssl

import pytest

from tests.certificates import SERVER, Authority
from tests.e2e.service import Service
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)


def trusts(service: Service, authority: Authority) -> bool:
    """Return True if the service shows a certificate of the authority on its gRPC port."""
    host, _, port = service.address.rpartition(":")
    context = authority.trusted()
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, int(port)), timeout=5) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except ssl.SSLCertVerificationError:
        return False


def test_hang_up_reloads(sqlite_url, tmp_path):
    """After SIGHUP the service goes on, with the files as they are then.

    The old pair serves until the new one is whole, and /readyz says meanwhile what is wrong.
    """
    old, new = Authority(tmp_path), Authority(tmp_path)
    pair, renewed = old.certify(*SERVER), new.certify(*SERVER)
    with Service(
        sqlite_url, tmp_path, tls_cert_file=str(pair.certificate), tls_key_file=str(pair.key)
    ) as service:
        assert service.process is not None
        shutil.copy(renewed.key, pair.key)
        service.process.send_signal(signal.SIGHUP)
        service.logged(event="reloaded")
        line = service.logged(event="TLS files not usable", level="error")
        assert line["problem"] == f"{pair.key} is not the key of the certificate"
        assert trusts(service, old)
        assert service.metric("milepost_tls_files_unusable") == 1
        assert service.metric("milepost_tls_certificate_expiry_timestamp_seconds") > 0
        status, page = service.probe("/readyz")
        assert (status, line["problem"] in page) == (200, True)
        shutil.copy(renewed.certificate, pair.certificate)
        eventually(lambda: trusts(service, new), within=10, what="the new pair is used")
        eventually(
            lambda: service.probe("/readyz")[1] == '{"status": "ready"}', within=10, what="well"
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2])
def test_other_signals_drain(sqlite_url, tmp_path, number):
    """Any other signal that would end a process lets it drain."""
    with Service(sqlite_url, tmp_path) as service:
        assert service.process is not None
        service.process.send_signal(number)
        assert service.end() == 0
        assert [line["event"] for line in service.log_lines()][-2:] == ["draining", "stopped"]
