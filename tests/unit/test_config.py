"""Settings: their defaults, their sources, and the values that are refused."""

import pytest

from milepost import config
from tests.unit.loaded_settings import problems

pytestmark = pytest.mark.usefixtures("no_settings")


def test_default_service_is_only_for_this_machine(monkeypatch, tmp_path):
    """By default the service is embedded, listens on loopback and chooses its log format."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    settings = config.load()
    assert settings.embedded
    expected = f"sqlite:///{tmp_path}/milepost/milepost.db"
    assert settings.database_url.get_secret_value() == expected
    assert (settings.listen, settings.http_listen) == ("127.0.0.1:7450", "127.0.0.1:7451")
    assert not settings.allow_plaintext
    assert settings.log_format == "auto"


def test_every_setting_is_described():
    """Every setting has a description for check-config."""
    assert [item.name for item in config.entries(config.load()) if not item.description] == []


def test_every_problem_is_reported_at_once(monkeypatch):
    """All invalid variables are reported at once, with their values."""
    for name, value in {
        "DATABASE_URL": "postgres://host/name",
        "LISTEN": "0.0.0.0:7450",
        "HTTP_LISTEN": "nonsense",
        "LOG_LEVEL": "loud",
        "OTLP_ENDPOINT": "localhost:4317",
        "TRACE_SAMPLE_RATIO": "2",
        "TTL_MIN_SECONDS": "90000",
        "PAGE_SIZE_MAX": "many",
    }.items():
        monkeypatch.setenv(f"MILEPOST_{name}", value)
    found = problems()
    assert [line.partition(":")[0].removeprefix("MILEPOST_") for line in found] == [
        "DATABASE_URL",
        "LISTEN",
        "HTTP_LISTEN",
        "LOG_LEVEL",
        "OTLP_ENDPOINT",
        "TRACE_SAMPLE_RATIO",
        "TTL_DEFAULT_SECONDS",
        "PAGE_SIZE_MAX",
    ]
    assert "(found '0.0.0.0:7450')" in found[1]


@pytest.mark.parametrize(
    "url",
    ["", "mysql://h/d", "postgresql://h/d", "sqlite://", "sqlite:///", "sqlite:///:memory:",
     "sqlite:///x.db?mode=ro"],
)  # fmt: skip
def test_unusable_databases_are_refused(monkeypatch, url):
    """A database URL that cannot store operations durably is refused."""
    monkeypatch.setenv("MILEPOST_DATABASE_URL", url)
    [line] = problems()
    assert line.startswith("MILEPOST_DATABASE_URL: must ")


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1", ":7450", "127.0.0.1:", "127.0.0.1:65536", "http://127.0.0.1:1", "::1:7450"],
)
def test_malformed_addresses_are_refused(monkeypatch, address):
    """The address of the gRPC port is HOST:PORT, and is not optional."""
    monkeypatch.setenv("MILEPOST_LISTEN", address)
    [line] = problems()
    assert line.startswith("MILEPOST_LISTEN: must be HOST:PORT")


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:7450", "[::1]:7450", "127.1.2.3:1"])
def test_loopback_needs_no_encryption(monkeypatch, address):
    """The gRPC port may be on any address that only this machine reaches."""
    monkeypatch.setenv("MILEPOST_LISTEN", address)
    assert config.load().listen == address


@pytest.mark.parametrize("address", ["0.0.0.0:7450", "[::]:7450", "192.0.2.1:7450", "milepost:1"])
def test_plaintext_to_other_machines_needs_a_setting(monkeypatch, address):
    """An address that other machines can reach needs TLS or an explicit setting."""
    monkeypatch.setenv("MILEPOST_LISTEN", address)
    [line] = problems()
    assert "without TLS" in line
    monkeypatch.setenv("MILEPOST_ALLOW_PLAINTEXT", "true")
    assert config.load().listen == address


def test_ports_must_differ(monkeypatch):
    """The two ports cannot have the same address; the HTTP port can be switched off."""
    monkeypatch.setenv("MILEPOST_HTTP_LISTEN", "127.0.0.1:7450")
    assert problems() == [
        "MILEPOST_HTTP_LISTEN: must differ from MILEPOST_LISTEN (found '127.0.0.1:7450')"
    ]
    monkeypatch.setenv("MILEPOST_HTTP_LISTEN", "")
    assert config.load().http_listen == ""


@pytest.mark.parametrize("ports", ["\u0664\u0664\u0663", "4\uff143"])
def test_digits_are_ascii(monkeypatch, ports):
    """A number in other digits than those of ASCII is refused."""
    monkeypatch.setenv("MILEPOST_WEBHOOK_ALLOWED_PORTS", ports)
    [line] = problems()
    assert "must be ports" in line


def test_variables_of_kubernetes_are_no_typos(monkeypatch):
    """The variables that Kubernetes sets beside a service named milepost are not reported."""
    for name in (
        "PORT",
        "PORT_7450_TCP",
        "PORT_7450_TCP_ADDR",
        "SERVICE_HOST",
        "SERVICE_PORT_GRPC",
    ):
        monkeypatch.setenv(f"MILEPOST_{name}", "tcp://10.0.0.1:7450")
    assert config.warnings() == []
    monkeypatch.setenv("MILEPOST_PORTS", "7450")
    assert len(config.warnings()) == 1


def test_overrides_win(monkeypatch):
    """Overrides win over the environment; an override of None does not count."""
    monkeypatch.setenv("MILEPOST_DRAIN_SECONDS", "3")
    settings = config.load(log_level="debug", drain_seconds=None)
    assert (settings.log_level, settings.drain_seconds) == ("debug", 3.0)
