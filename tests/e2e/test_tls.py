"""TLS: the server's certificate, client certificates, and their principals."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from grpc import StatusCode

from milepost_client import SyncMilepost, Unauthenticated, Unavailable, read_tls
from tests.certificates import SERVER, Authority, Pair
from tests.e2e.client import Client
from tests.e2e.commands import DENIED, OK, milepost
from tests.e2e.rpcs import CALL_SECONDS
from tests.e2e.service import Service
from tests.waiting import eventually

ENCODER = x509.DNSName("encoder.example.com")
WATCHER = x509.UniformResourceIdentifier("spiffe://example.com/watcher")
PRINCIPALS = {
    "dns:encoder.example.com": {"subject": "encoder", "roles": ["CALLER"]},
    "uri:spiffe://example.com/watcher": {"subject": "watcher", "roles": ["ADMIN"]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the certificate files."""
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    """The authority of server and clients."""
    return Authority(folder)


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    """The server's certificate and key."""
    return authority.certify(*SERVER)


@pytest.fixture(scope="module")
def tls_service(folder: Path, pair: Pair) -> Iterator[Service]:
    """A service with a certificate that authenticates clients by key."""
    with Service(
        f"sqlite:///{folder}/tls.db",
        folder,
        tls_cert_file=str(pair.certificate),
        tls_key_file=str(pair.key),
    ) as service:
        yield service


@pytest.fixture(scope="module")
def mtls_service(folder: Path, authority: Authority, pair: Pair) -> Iterator[Service]:
    """A service that demands a certificate of every client."""
    with Service(
        f"sqlite:///{folder}/mtls.db",
        folder,
        tls_cert_file=str(pair.certificate),
        tls_key_file=str(pair.key),
        tls_client_ca_file=str(authority.file),
        mtls_principals=json.dumps(PRINCIPALS),
    ) as service:
        yield service


def client(
    service: Service, authority: Authority, own: Pair | None = None, key: str | None = None
) -> SyncMilepost:
    """Return a client that trusts this authority and shows its own certificate."""
    tls = read_tls(
        ca_file=authority.file,
        certificate_file=own.certificate if own else None,
        key_file=own.key if own else None,
    )
    return SyncMilepost(service.address, api_key=key, tls=tls, deadline=CALL_SECONDS)


def test_calls_are_encrypted(tls_service, authority):
    """A client that trusts the authority calls over TLS with an API key."""
    with client(tls_service, authority, key=tls_service.api_key("alice")) as milepost_:
        assert milepost_.create("video.transcode").owner == "alice"
    with (
        client(tls_service, authority, key=None) as rejected,
        pytest.raises(Unauthenticated),
    ):
        rejected.create("video.transcode")


def test_plaintext_gets_no_answer(tls_service):
    """A call in plain text gets no answer."""
    key = tls_service.api_key("alice")
    with (
        grpc.insecure_channel(tls_service.address) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        Client(channel, "alice", frozenset(), key).create()
    assert caught.value.code() is StatusCode.UNAVAILABLE


def test_service_of_another_authority_is_not_trusted(tls_service, folder):
    """A client that trusts another authority does not send its key."""
    stranger = Authority(folder)
    tls = read_tls(ca_file=stranger.file)
    key = tls_service.api_key("alice")
    with (
        SyncMilepost(tls_service.address, api_key=key, tls=tls, deadline=1) as milepost_,
        pytest.raises(Unavailable),
    ):
        milepost_.create("video.transcode")


def test_command_line_speaks_tls(tls_service, authority):
    """Commands check the service with the authority in MILEPOST_CA_FILE."""
    settings = {
        "MILEPOST_ADDRESS": tls_service.address,
        "MILEPOST_API_KEY": tls_service.api_key("alice"),
        "MILEPOST_CA_FILE": str(authority.file),
    }
    done = milepost("ops", "create", "video.transcode", "--output", "json", **settings)
    assert (done.code, done.err) == (OK, "")
    assert done.json["owner"] == "alice"
    missing = milepost("ops", "list", **{**settings, "MILEPOST_CA_FILE": "/nowhere.pem"})
    assert missing.err == "error: /nowhere.pem: No such file or directory\n"


def test_certificate_is_the_credential_of_its_principal(mtls_service, authority):
    """Without a key the client certificate is the credential of a configured principal."""
    with client(mtls_service, authority, authority.certify(ENCODER)) as encoder:
        operation = encoder.create("video.transcode")
        assert operation.owner == "encoder"
    with client(mtls_service, authority, authority.certify(WATCHER)) as watcher:
        assert watcher.get(operation.id).owner == "encoder"  # an admin has access to all
    line = mtls_service.logged(event="operation changed", operation_id=operation.id)
    assert line["credential_id"] == "certificate dns:encoder.example.com"


def test_certificate_without_one_principal_is_refused(mtls_service, authority):
    """A certificate of no or of two principals is refused like a missing key."""
    for names in ((), (x509.DNSName("x.example.com"),), (ENCODER, WATCHER)):
        with (
            client(mtls_service, authority, authority.certify(*names)) as rejected,
            pytest.raises(Unauthenticated, match="<API key>', or call with a trusted client cert"),
        ):
            rejected.create("video.transcode")


def test_kind_of_a_name_matters(mtls_service, authority):
    """A name of another type with the same text is not that of the principal."""
    forged = authority.certify(x509.UniformResourceIdentifier("encoder.example.com"))
    with client(mtls_service, authority, forged) as rejected, pytest.raises(Unauthenticated):
        rejected.create("video.transcode")


def test_bearer_credential_goes_before_the_certificate(mtls_service, authority):
    """An authorization header takes precedence over the certificate, for valid and bad keys."""
    own = authority.certify(ENCODER)
    with client(mtls_service, authority, own, mtls_service.api_key("alice")) as alice:
        assert alice.create("video.transcode").owner == "alice"
    with client(mtls_service, authority, own, "mp_nonsense") as bad, pytest.raises(Unauthenticated):
        bad.create("video.transcode")


def test_connection_without_a_certificate_is_refused(mtls_service, authority, folder):
    """A client without a certificate of the authority is refused before it sends its key."""
    key = mtls_service.api_key("alice")
    for own in (None, Authority(folder).certify(ENCODER)):
        tls = read_tls(
            ca_file=authority.file,
            certificate_file=own.certificate if own else None,
            key_file=own.key if own else None,
        )
        with (
            SyncMilepost(mtls_service.address, api_key=key, tls=tls, deadline=1) as milepost_,
            pytest.raises(Unavailable),
        ):
            milepost_.create("video.transcode")


def test_command_line_shows_its_certificate(mtls_service, authority):
    """Commands authenticate with their configured certificate, without a key."""
    own = authority.certify(ENCODER)
    settings = {
        "MILEPOST_ADDRESS": mtls_service.address,
        "MILEPOST_CA_FILE": str(authority.file),
        "MILEPOST_CLIENT_CERT_FILE": str(own.certificate),
        "MILEPOST_CLIENT_KEY_FILE": str(own.key),
    }
    assert milepost("ops", "list", "--output", "json", **settings).code == OK
    denied = milepost("ops", "list", MILEPOST_API_KEY="mp_x", **settings)
    assert denied.code == DENIED


def test_renewed_certificate_is_used_without_a_restart(folder, tmp_path):
    """New connections use the new certificate once its files are replaced."""
    old, new = Authority(folder), Authority(folder)
    pair = old.certify(*SERVER)
    with Service(
        f"sqlite:///{tmp_path}/renewed.db",
        tmp_path,
        tls_cert_file=str(pair.certificate),
        tls_key_file=str(pair.key),
    ) as service:
        key = service.api_key("alice")
        with client(service, old, key=key) as milepost_:
            milepost_.create("video.transcode")
        renewed = new.certify(*SERVER)
        shutil.copy(renewed.key, pair.key)
        shutil.copy(renewed.certificate, pair.certificate)

        def answers() -> bool:
            tls = read_tls(ca_file=new.file)
            with SyncMilepost(service.address, api_key=key, tls=tls, deadline=2) as milepost_:
                try:
                    milepost_.create("video.transcode")
                except Unavailable:
                    return False
            return True

        eventually(answers, within=10, what="the new certificate is used")


def test_missing_half_of_a_pair_is_refused():
    """A client certificate without its key is a configuration error that names the setting."""
    with pytest.raises(ValueError, match="need each other"):
        read_tls(certificate_file="x")
