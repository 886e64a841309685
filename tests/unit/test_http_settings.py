"""Settings of the HTTP port: what they allow, and what they refuse."""

import pytest

from milepost import config
from milepost.main.open_files import max_http_connections
from tests.unit.loaded_settings import problems

pytestmark = pytest.mark.usefixtures("no_settings")
EVERYWHERE = "0.0.0.0:7451"


def chosen(monkeypatch, **settings):
    """Load the settings with these values."""
    for name, value in settings.items():
        monkeypatch.setenv(f"MILEPOST_{name.upper()}", value)
    return config.load()


def test_api_is_served_on_the_loopback():
    """By default the API is served, on the loopback, to no other origin, without tokens in URLs."""
    settings = config.load()
    assert settings.serves_http_api
    assert settings.allowed_origins == frozenset()
    assert not settings.http_token_in_query


@pytest.mark.parametrize(
    ("settings", "served"),
    [
        ({"http_listen": EVERYWHERE}, False),
        ({"http_listen": EVERYWHERE, "allow_plaintext": "true"}, True),
        ({"http_listen": "[::1]:7451"}, True),
        ({"http_listen": ""}, False),
        ({"http_api": "false"}, False),
    ],
)
def test_api_is_off_where_a_network_sees_credentials(monkeypatch, settings, served):
    """In plain text the API is served on the loopback only, unless a proxy ends TLS."""
    assert chosen(monkeypatch, **settings).serves_http_api is served


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"http_listen": EVERYWHERE, "http_api": "true"}, "without TLS"),
        ({"http_listen": "", "http_api": "true"}, "needs MILEPOST_HTTP_LISTEN"),
        ({"http_tls": "true"}, "needs MILEPOST_TLS_CERT_FILE"),
        ({"http_listen": "127.0.0.1:7450"}, "must differ from MILEPOST_LISTEN"),
        ({"probes_listen": "127.0.0.1:7450"}, "must differ from MILEPOST_LISTEN"),
        ({"probes_listen": "127.0.0.1:7451"}, "must differ from MILEPOST_HTTP_LISTEN"),
        ({"probes_listen": "7451"}, "MILEPOST_PROBES_LISTEN"),
        ({"http_origins": "console.example"}, "is not an origin"),
        ({"http_origins": "https://console.example/"}, "is not an origin"),
        ({"http_origins": "null"}, "is not an origin"),
    ],
)
def test_contradictory_settings_are_refused(monkeypatch, settings, problem):
    """A setting that cannot work, or discloses credentials, is refused at the start."""
    with pytest.raises(config.SettingsError):
        chosen(monkeypatch, **settings)
    assert problem in " ".join(problems())


def test_origins_are_separated_by_commas(monkeypatch):
    """Several origins may be listed, or any."""
    settings = chosen(monkeypatch, http_origins="https://a.example, http://localhost:3000,")
    assert settings.allowed_origins == {"https://a.example", "http://localhost:3000"}
    assert chosen(monkeypatch, http_origins="*").allowed_origins == {"*"}


def test_connections_have_room_among_the_open_files(monkeypatch):
    """The HTTP port keeps half of the possible connections, or as many as the setting says."""
    assert config.load().http_connections_max is None
    assert max_http_connections(65_536, None) == 32_512
    setting = chosen(monkeypatch, http_connections_max="10000").http_connections_max
    assert max_http_connections(20_000, setting) == 10_000
    assert max_http_connections(1_024, setting) == 512
