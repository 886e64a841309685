"""Settings of trust: issuers, certificates and TLS files, with every problem at once."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from milepost import config
from milepost.domain.operation import Principal, Role
from milepost.domain.trust import certificates_from, issuers_from
from tests.certificates import SERVER, Authority

ISSUER: dict[str, Any] = {
    "issuer": "https://issuer.example",
    "audience": "milepost",
    "algorithms": ["RS256"],
    "jwks_url": "https://issuer.example/keys",
}
CERTIFICATE = {"subject": "encoder", "roles": ["WORKER"], "functions": ["video.*"]}


def test_issuer_has_defaults():
    """An issuer has four required settings; its subjects get its name as a prefix."""
    [issuer] = issuers_from(json.dumps([ISSUER]))
    assert (issuer.subject_claim, issuer.roles_claim, issuer.functions_claim) == (
        "sub",
        "roles",
        "functions",
    )
    assert issuer.subject_prefix == "https://issuer.example|"
    assert issuer.lifetime_max == timedelta(hours=24)
    assert issuers_from("") == ()


BAD_ISSUERS: dict[str, tuple[dict[str, Any], str]] = {
    "HMAC": ({"algorithms": ["HS256"]}, "[0].algorithms must be some of"),
    "none": ({"algorithms": ["RS256", "none"]}, "[0].algorithms must be some of"),
    "no algorithm": ({"algorithms": []}, "[0].algorithms must be some of"),
    "algorithm a text": ({"algorithms": "RS256"}, "[0].algorithms must be a list"),
    "no audience": ({"audience": ""}, "[0].audience must not be blank"),
    "issuer a number": ({"issuer": 7}, "[0].issuer must be a text"),
    "plain http": ({"jwks_url": "http://issuer.example/keys"}, "[0].jwks_url must be https"),
    "another scheme": ({"jwks_url": "file:///etc/passwd"}, "[0].jwks_url must be https"),
    "password": ({"jwks_url": "https://u:hunter2@issuer.example/"}, "[0].jwks_url must be https"),
    "no host": ({"jwks_url": "https:///keys"}, "[0].jwks_url must be https"),
    "bad port": ({"jwks_url": "https://issuer.example:x/"}, "[0].jwks_url must be https"),
    "no keys": ({"jwks_url": ""}, "[0].jwks_url or jwks_file must be given"),
    "both": ({"jwks_file": "/keys.json"}, "[0].jwks_url or jwks_file must be given"),
    "lifetime": ({"lifetime_max_seconds": 0}, "[0].lifetime_max_seconds must be a number"),
    "lifetime true": ({"lifetime_max_seconds": True}, "[0].lifetime_max_seconds must be"),
    "invisible prefix": ({"subject_prefix": "web\u200b:"}, "[0].subject_prefix must be"),
    "padded prefix": ({"subject_prefix": " web:"}, "[0].subject_prefix must be"),
    "unknown": ({"audiance": "x"}, "[0].audiance is not known"),
}


@pytest.mark.parametrize("name", BAD_ISSUERS)
def test_wrong_issuers_are_refused(name):
    """An invalid issuer is reported by its field, without repeating a password."""
    change, text = BAD_ISSUERS[name]
    with pytest.raises(ValueError, match=r"must|known") as caught:
        issuers_from(json.dumps([{**ISSUER, **change}]))
    assert text in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_every_problem_of_every_issuer_is_reported():
    """Every problem of every issuer is reported at once."""
    with pytest.raises(ValueError, match="audience") as caught:
        issuers_from(json.dumps([{**ISSUER, "audience": 1, "algorithms": []}, 7]))
    for part in ("[0].audience", "[0].algorithms", "[1] must be an object"):
        assert part in str(caught.value)


@pytest.mark.parametrize("text", ["{", "{}", "7", '"x"', "[" * 100_000])
def test_issuers_are_a_list(text):
    """JSON other than a list is refused."""
    with pytest.raises(ValueError, match="must be"):
        issuers_from(text)


@pytest.mark.parametrize("prefixes", [("", ""), ("", "b|"), ("a|", "a|b|"), ("a|", "a|")])
def test_issuers_have_no_subjects_in_common(prefixes):
    """Two issuers with overlapping subjects are refused, as one could impersonate the other."""
    issuers = [
        {**ISSUER, "issuer": f"https://{n}.example", "subject_prefix": prefix}
        for n, prefix in enumerate(prefixes)
    ]
    with pytest.raises(ValueError, match="subjects in common"):
        issuers_from(json.dumps(issuers))


def test_one_issuer_may_share_the_subjects_of_keys():
    """The operator can configure one issuer without a prefix for its subjects."""
    [issuer] = issuers_from(json.dumps([{**ISSUER, "subject_prefix": ""}]))
    assert issuer.subject_prefix == ""


def test_loopback_needs_no_encryption():
    """The keys may be fetched over plain HTTP from this machine."""
    for host in ("127.0.0.1:8080", "[::1]:8080", "localhost"):
        [issuer] = issuers_from(json.dumps([{**ISSUER, "jwks_url": f"http://{host}/keys"}]))
        assert issuer.jwks_url == f"http://{host}/keys"


def test_certificates_name_principals():
    """A name of a certificate gives subject, roles and grants."""
    assert certificates_from(json.dumps({"dns:encoder.example": CERTIFICATE})) == {
        "dns:encoder.example": Principal(
            subject="encoder",
            roles=frozenset({Role.WORKER}),
            credential_id="certificate dns:encoder.example",
            functions=("video.*",),
        )
    }


BAD_CERTIFICATES: dict[str, tuple[str, Any, str]] = {
    "no kind": ("encoder.example", CERTIFICATE, "must begin with dns:"),
    "kind alone": ("dns:", CERTIFICATE, "must begin with dns:"),
    "no subject": ("dns:x", {**CERTIFICATE, "subject": " "}, "dns:x.subject must not be blank"),
    "padded": ("dns:x", {**CERTIFICATE, "subject": "a "}, "dns:x.subject must not begin or end"),
    "invisible": ("dns:x", {**CERTIFICATE, "subject": "a\u200b"}, "dns:x.subject must not contain"),
    "subject a number": ("dns:x", {**CERTIFICATE, "subject": 7}, "dns:x.subject must be a text"),
    "no role": ("dns:x", {**CERTIFICATE, "roles": []}, "dns:x.roles must be some of"),
    "unknown role": ("dns:x", {**CERTIFICATE, "roles": ["BOSS"]}, "dns:x.roles must be some of"),
    "grants": ("dns:x", {**CERTIFICATE, "functions": ["a b"]}, "dns:x.functions must be names"),
    "unknown field": ("dns:x", {**CERTIFICATE, "role": 1}, "dns:x.role is not known"),
    "no object": ("dns:x", 7, "dns:x must be an object"),
}


@pytest.mark.parametrize("name", BAD_CERTIFICATES)
def test_wrong_certificates_are_refused(name):
    """An invalid certificate is reported with its problem."""
    key, value, text = BAD_CERTIFICATES[name]
    with pytest.raises(ValueError, match=r"must|known") as caught:
        certificates_from(json.dumps({key: value}))
    assert text in str(caught.value)


# --- the settings ---


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Files for TLS."""
    authority = Authority(tmp_path)
    pair, other = authority.certify(*SERVER), authority.certify(*SERVER)
    (tmp_path / "empty").touch()
    return {
        "certificate": pair.certificate,
        "key": pair.key,
        "other key": other.key,
        "authority": authority.file,
        "empty": tmp_path / "empty",
        "missing": tmp_path / "missing",
    }


def problems(**settings: object) -> list[str]:
    """Return the problems of these settings."""
    try:
        config.load(**{name: str(value) for name, value in settings.items()})
    except config.SettingsError as error:
        return error.problems
    return []


def test_tls_admits_other_addresses_than_loopback(files):
    """With a certificate the port may be reached from other machines."""
    tls = {"tls_cert_file": files["certificate"], "tls_key_file": files["key"]}
    assert problems(listen="0.0.0.0:7450", **tls) == []
    [line] = problems(listen="0.0.0.0:7450")
    assert "TLS_CERT_FILE" in line


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"tls_cert_file": "certificate"}, "need each other"),
        ({"tls_key_file": "key"}, "need each other"),
        ({"tls_cert_file": "missing", "tls_key_file": "key"}, "No such file"),
        ({"tls_cert_file": "certificate", "tls_key_file": "other key"}, "is not the unencrypted"),
        ({"tls_cert_file": "empty", "tls_key_file": "key"}, "is not the unencrypted key"),
        ({"tls_client_ca_file": "authority"}, "needs MILEPOST_TLS_CERT_FILE"),
        (
            {"tls_cert_file": "certificate", "tls_key_file": "key", "tls_client_ca_file": "empty"},
            "has no certificate",
        ),
    ],
)
def test_wrong_files_are_refused_at_the_start(files, settings, text):
    """A file that is missing, empty, or does not match the other is a problem at the start."""
    [line] = problems(**{name: files[file] for name, file in settings.items()})
    assert text in line


def test_principals_need_an_authority(files):
    """Names of certificates need an authority that verifies certificates of clients."""
    text = json.dumps({"dns:encoder.example": CERTIFICATE})
    [line] = problems(mtls_principals=text)
    assert line.startswith("MILEPOST_MTLS_PRINCIPALS: needs MILEPOST_TLS_CLIENT_CA_FILE")
    assert not problems(
        tls_cert_file=files["certificate"],
        tls_key_file=files["key"],
        tls_client_ca_file=files["authority"],
        mtls_principals=text,
    )


@pytest.mark.parametrize("subject", ["https://issuer.example|alice", "HTTPS://issuer.example|a"])
def test_certificates_have_no_subject_of_an_issuer(files, subject):
    """A certificate may not stand for a subject of a trusted issuer."""
    [line] = problems(
        jwt_issuers=json.dumps([ISSUER]),
        mtls_principals=json.dumps({"dns:x": {**CERTIFICATE, "subject": subject}}),
        tls_cert_file=files["certificate"],
        tls_key_file=files["key"],
        tls_client_ca_file=files["authority"],
    )
    assert line.startswith("MILEPOST_MTLS_PRINCIPALS: dns:x.subject must not begin like")


def test_limits_are_those_of_subjects():
    """Limits of a text that is no subject would have no effect, and are a problem."""
    [line] = problems(principal_limits='{"alice ": {"creates": 5}}')
    assert "the subject must not begin or end with a space" in line


def test_file_of_keys_must_be_there(tmp_path):
    """A missing file of an issuer's keys is a problem at the start."""
    issuer = {**ISSUER, "jwks_url": "", "jwks_file": str(tmp_path / "keys.json")}
    [line] = problems(jwt_issuers=json.dumps([issuer]))
    assert line.startswith("MILEPOST_JWT_ISSUERS: ")
    assert "No such file" in line


def test_invalid_issuers_are_reported_with_other_problems():
    """Invalid issuers, certificates and addresses are reported in one run."""
    found = problems(jwt_issuers="[7]", mtls_principals="[]", listen="nonsense")
    assert [line.partition(":")[0] for line in found] == [
        "MILEPOST_JWT_ISSUERS",
        "MILEPOST_MTLS_PRINCIPALS",
        "MILEPOST_LISTEN",
    ]
