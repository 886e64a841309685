"""Secrets in settings: no problem and no row of check-config prints one."""

import pytest

from milepost import config
from tests.unit.loaded_settings import entry, problems_or_none

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://u:s3cret@h/d", "postgresql+psycopg://u:***@h/d"),
        ("postgresql+psycopg://u:s3%40cr%2Fet@h:1/d", "postgresql+psycopg://u:***@h:1/d"),
        ("postgresql+psycopg://u:s3cret@[::1]:1/d", "postgresql+psycopg://u:***@[::1]:1/d"),
        (
            "postgresql+psycopg://u@h/d?password=s3cret&x=1",
            "postgresql+psycopg://u@h/d?password=***&x=1",
        ),
        (
            "postgresql+psycopg://u@h/d?sslpassword=s3cret&%70assword=s3",
            "postgresql+psycopg://u@h/d?sslpassword=***&%70assword=***",
        ),
        ("postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
    ],
)
def test_passwords_are_masked(monkeypatch, url, shown):
    """A printed database URL has no password, in any part of the URL."""
    monkeypatch.setenv("MILEPOST_DATABASE_URL", url)
    assert entry("MILEPOST_DATABASE_URL").value == shown
    assert "s3" not in repr(config.load())


def test_problems_have_no_secrets(monkeypatch):
    """No form of an error repeats the password of a refused URL."""
    monkeypatch.setenv("MILEPOST_DATABASE_URL", "mysql://u:s3cret@h/d")
    monkeypatch.setenv("MILEPOST_OTLP_ENDPOINT", "grpc://u:s3cret@h")
    monkeypatch.setenv("MILEPOST_DRAIN_SECONDS", "-1")
    with pytest.raises(config.SettingsError) as caught:
        config.load()
    chain = [caught.value, caught.value.__context__, config.entries(None)]
    assert "s3cret" not in "".join(map(repr, chain)) + "".join(map(str, chain))


SECRET = "s3cr3t"  # noqa: S105 - of the URLs below


UNPARSABLE = {
    "DATABASE_URL": (
        f"postgresql+psycopg://u:{SECRET}/db",
        f"postgresql+psycopg://u:x@{SECRET}@h/db",
        f"postgresql+psycopg://u:x/{SECRET}@h/db",
        f"postgresql+psycopg://u:x#{SECRET}@h/db",
        f"postgresql+psycopg://u:1?{SECRET}@h/db",
        f"postgresql+psycopg://u:12/{SECRET}@h/db",
        f"postgresql+psycopg://u:{SECRET}@h:port/db",
        f"postgresql+psycopg://u:{SECRET} x@h/db",
        f"postgresql+psycopg:/u:{SECRET}@h/db",
        f"postgresql+psycopg:u:{SECRET}@h/db",
        f"//u:{SECRET}@h/db",
        f"u:{SECRET}@h/db",
        f"host=h user=u password={SECRET}",
        f"postgres://u:{SECRET}@h/db",
        f"sqlite:///x.db?password={SECRET}@y",
        SECRET,
    ),
    "LIMITS_URL": (
        f"redis://:{SECRET}\u2100@h",  # the message of Python quotes what NFKC changes
        f"redis://:{SECRET}@[h",
        f"redis://{SECRET}@h/x",
        f"redis:{SECRET}@h",
        f"redis://h:6379/0?password={SECRET}#x",
    ),
    "WEBHOOK_KEYS": (SECRET, f"k1:{SECRET}", f"{SECRET}{'x' * 32}:k1", f"k1={SECRET}"),
    "WEBHOOK_KEYS_FILE": (f"k1:{SECRET}=",),
    "OTLP_ENDPOINT": (f"http://u:{SECRET}@h", f"http:/u:{SECRET}@h", f"u:{SECRET}@h"),
    "JWT_ISSUERS": (
        f'[{{"jwks_url": "https://u:{SECRET}@h"}}]',
        f'[{{"jwks_url": "https:/u/x:{SECRET}@h"}}]',
        f'{{"token": "{SECRET}"',
    ),
    "TLS_KEY_FILE": (f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n",),
    "LISTEN": (f"http://u:{SECRET}@h:1",),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in UNPARSABLE.items() for value in values]
)
def test_secrets_of_unparsable_values_are_not_printed(monkeypatch, name, value):
    """No problem, and no row of check-config, repeats a secret in a value that is malformed."""
    monkeypatch.setenv(f"MILEPOST_{name}", value)
    monkeypatch.setenv("MILEPOST_DRAIN_SECONDS", "-1")
    with pytest.raises(config.SettingsError) as caught:
        config.load()
    printed = [*caught.value.problems, *map(repr, config.entries(None))]
    assert SECRET not in "".join(printed)


def test_lines_of_the_file_are_not_printed(settings_file):
    """A line that begins with no name is reported without its text, which may be a secret."""
    settings_file(f"postgresql+psycopg://u:{SECRET}@h/d?sslmode=require\n{SECRET}==\n")
    lines = [*config.warnings(), *problems_or_none()]
    assert SECRET.upper() not in "".join(lines).upper()
    assert "MILEPOST_CONFIG_FILE has lines that do not name a setting" in lines


def test_key_of_the_client_is_masked(settings_file):
    """The API key is never printed."""
    settings_file("MILEPOST_API_KEY=mp_s3cret\n")
    shown = {each.name: each.value for each in config.client_entries()}
    assert shown["MILEPOST_API_KEY"] == "***"
