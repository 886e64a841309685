"""The settings of webhooks: their effects, and the values that are refused."""

from datetime import timedelta
from ipaddress import ip_network

import pytest

from milepost import config
from milepost.domain.callback_url import CallbackRules
from milepost.webhooks.master_keys import new_key, read_keys

pytestmark = pytest.mark.usefixtures("no_settings")


def load(monkeypatch, **settings):
    """Return the settings with these values for webhooks."""
    for name, value in settings.items():
        monkeypatch.setenv(f"MILEPOST_WEBHOOK_{name.upper()}", value)
    return config.load()


def test_defaults():
    """By default, only public receivers over https, 8 attempts, 5 s for each."""
    settings = config.load()
    assert settings.callback_rules == CallbackRules()
    assert settings.webhook_keys is None
    assert settings.webhook_timeout_seconds == 5
    assert (settings.webhook_concurrency, settings.webhook_concurrency_per_host) == (512, 8)
    pauses = [0, 1, 2, 4, 30, 300, 1_800, 7_200]
    assert settings.webhook_schedule == tuple(timedelta(seconds=each) for each in pauses)


def test_rules_for_callback_urls(monkeypatch):
    """The rules follow the settings; lists may have spaces."""
    settings = load(
        monkeypatch,
        allow_http="true",
        allowed_domains="example.com, hooks.example.org",
        allowed_networks="10.1.0.0/16,fd00::/8",
        refused_networks="8.8.8.0/24",
        allowed_ports="8080, 9443",
    )
    assert settings.callback_rules == CallbackRules(
        allow_http=True,
        allowed_domains=("example.com", "hooks.example.org"),
        allowed_networks=(ip_network("10.1.0.0/16"), ip_network("fd00::/8")),
        refused_networks=(ip_network("8.8.8.0/24"),),
        allowed_ports=(8080, 9443),
    )


def test_master_keys(monkeypatch):
    """Master keys are read as written, and never shown."""
    keys = f"{new_key()},{new_key()}"
    settings = load(monkeypatch, keys=keys)
    assert read_keys(settings.webhook_keys.get_secret_value()) == read_keys(keys)
    assert keys not in repr(settings)
    assert not any(keys in str(entry.value) for entry in config.entries(settings))


def test_empty_master_keys_are_unset(monkeypatch):
    """An empty variable counts as unset."""
    assert load(monkeypatch, keys="").webhook_keys is None


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("KEYS", "hunter2", "key 1 must be ID:BASE64"),
        ("KEYS", "k1:c2hvcnQ=", "key 1 must be 32 random bytes in base64"),
        ("ALLOW_HTTP", "maybe", "valid boolean"),
        ("ALLOWED_DOMAINS", "*.example.com", "need no asterisk"),
        ("ALLOWED_DOMAINS", "https://example.com", "must be names such as example.com"),
        ("ALLOWED_DOMAINS", "example.com hooks.example.org", "must be names such as example.com"),
        ("ALLOWED_DOMAINS", ".example.com", "must be names such as example.com"),
        ("ALLOWED_NETWORKS", "10.1.0.0/33", "10.1.0.0/33"),
        ("ALLOWED_NETWORKS", "10.1.0.1/16", "has host bits set"),
        ("REFUSED_NETWORKS", "10.0.0.0/8,office", "'office'"),
        ("ALLOWED_PORTS", "0", "must be ports, separated by commas"),
        ("ALLOWED_PORTS", "8080,65536", "must be ports, separated by commas"),
        ("ALLOWED_PORTS", "8080 8081", "must be ports, separated by commas"),
        ("TIMEOUT_SECONDS", "0", "greater than 0"),
        ("TIMEOUT_SECONDS", "soon", "valid number"),
        ("SCHEDULE_SECONDS", "", "must have at least one pause"),
        ("SCHEDULE_SECONDS", "0,-1", "must be from 0 to 2678400"),
        ("SCHEDULE_SECONDS", "0,inf", "must be from 0 to 2678400"),
        ("SCHEDULE_SECONDS", "0,nan", "must be from 0 to 2678400"),
        ("SCHEDULE_SECONDS", "0,1 min", "'1 min'"),
        ("CONCURRENCY", "0", "greater than 0"),
        ("CONCURRENCY", "1.5", "valid integer"),
        ("CONCURRENCY_PER_HOST", "0", "greater than 0"),
    ],
)
def test_bad_values_are_refused_by_name(monkeypatch, name, value, problem):
    """An invalid setting is refused at the start, with its name and the reason but no secret."""
    with pytest.raises(config.SettingsError) as refused:
        load(monkeypatch, **{name: value})
    (line,) = refused.value.problems
    assert line.startswith(f"MILEPOST_WEBHOOK_{name}: ")
    assert problem in line
    assert (value in line) is (name != "KEYS")


def test_keys_from_one_place_only(monkeypatch, tmp_path):
    """Keys that are given both directly and in a file are refused."""
    with pytest.raises(config.SettingsError) as refused:
        load(monkeypatch, keys=new_key(), keys_file=str(tmp_path / "keys"))
    (line,) = refused.value.problems
    assert line.startswith("MILEPOST_WEBHOOK_KEYS_FILE: must not be set together with")
