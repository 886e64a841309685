"""Settings: their defaults, their sources, and the values that are refused."""

import os
from datetime import timedelta

import pytest

from milepost import config
from milepost.domain.limits import Limits
from milepost.domain.rates import Allowance, Allowances


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in list(os.environ):
        if name.startswith("MILEPOST_"):
            monkeypatch.delenv(name)


@pytest.fixture
def settings_file(tmp_path, monkeypatch):
    """A function that writes the settings file."""
    path = tmp_path / "settings.env"
    monkeypatch.setenv("MILEPOST_CONFIG_FILE", str(path))
    return path.write_text


def problems():
    """Return the problems that `load` reports."""
    with pytest.raises(config.SettingsError) as caught:
        config.load()
    assert str(caught.value) == "; ".join(caught.value.problems)
    return caught.value.problems


def entry(name):
    """Return the entry of one setting in check-config."""
    return next(item for item in config.entries(config.load()) if item.name == name)


def test_defaults_are_the_limits_of_the_product():
    """The default limits are those that the product promises."""
    assert config.load().limits == Limits()


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


def test_limits_can_be_configured(monkeypatch):
    """A limit follows its variable."""
    monkeypatch.setenv("MILEPOST_TTL_MAX_SECONDS", "1209600")
    monkeypatch.setenv("MILEPOST_METADATA_BYTES_MAX", "10")
    limits = config.load().limits
    assert (limits.ttl_max, limits.metadata_bytes) == (timedelta(days=14), 10)


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
    ["", "mysql://h/d", "postgresql://h/d", "sqlite://", "sqlite:///", "sqlite:///:memory:"],
)
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


def test_environment_overrides_file_and_default(monkeypatch, settings_file):
    """Each value has its source; the environment overrides the file."""
    settings_file("# comment\nMILEPOST_DRAIN_SECONDS=7\nexport MILEPOST_LOG_LEVEL='debug'\n")
    monkeypatch.setenv("MILEPOST_LOG_LEVEL", "error")
    drain, level, reflection = (
        entry(f"MILEPOST_{name}") for name in ("DRAIN_SECONDS", "LOG_LEVEL", "REFLECTION")
    )
    assert (drain.value, drain.source) == (7.0, "file")
    assert (level.value, level.source) == ("error", "environment")
    assert (reflection.value, reflection.source) == (True, "default")


def test_malformed_line_is_reported_with_other_problems(settings_file, capfd):
    """A malformed line is reported by its number, and does not hide other problems."""
    settings_file("MILEPOST_DRAIN_SECONDS=soon\nthis is not a setting\n")
    first, second = problems()
    assert first.endswith("line 2 is not KEY=VALUE")
    assert second.startswith("MILEPOST_DRAIN_SECONDS: ")
    assert capfd.readouterr() == ("", "")


def test_missing_file_is_a_problem(monkeypatch, tmp_path):
    """A configured settings file must exist."""
    monkeypatch.setenv("MILEPOST_CONFIG_FILE", str(tmp_path / "nowhere"))
    [line] = problems()
    assert line.startswith("MILEPOST_CONFIG_FILE: ")
    assert line.endswith("No such file or directory")


def test_binary_file_is_a_problem(monkeypatch, tmp_path):
    """A settings file is UTF-8 text."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setenv("MILEPOST_CONFIG_FILE", str(tmp_path / "binary"))
    [line] = problems()
    assert line.endswith("is not UTF-8 text")


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


def problems_or_none():
    """Return the problems that `load` reports, if any."""
    try:
        config.load()
    except config.SettingsError as error:
        return error.problems
    return []


@pytest.mark.parametrize("ports", ["\u0664\u0664\u0663", "4\uff143"])
def test_digits_are_ascii(monkeypatch, ports):
    """A number in other digits than those of ASCII is refused."""
    monkeypatch.setenv("MILEPOST_WEBHOOK_ALLOWED_PORTS", ports)
    [line] = problems()
    assert "must be ports" in line


def test_typos_are_found(monkeypatch, settings_file):
    """An unknown variable is reported, with the setting that may have been meant."""
    settings_file("MILEPOST_REFLEXION=off\n")
    for name in ("LISTENS", "ADDRESS", "API_KEY", "TEST_POSTGRES_URL"):
        monkeypatch.setenv(f"MILEPOST_{name}", "x")
    assert config.warnings() == [
        "MILEPOST_LISTENS is not a setting; did you mean MILEPOST_LISTEN?",
        (
            "MILEPOST_REFLEXION in MILEPOST_CONFIG_FILE is not a setting;"
            " did you mean MILEPOST_REFLECTION?"
        ),
    ]


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


def test_client_variables_come_from_the_file_too(monkeypatch, settings_file):
    """The environment wins over the settings file; an empty variable counts as unset."""
    settings_file("MILEPOST_ADDRESS=file:1\nmilepost_ca_file=/ca\n")
    assert config.client_value(config.ADDRESS) == "file:1"
    assert config.client_tls_files() == {"ca_file": "/ca"}
    monkeypatch.setenv("MILEPOST_ADDRESS", "environment:1")
    assert config.client_value(config.ADDRESS) == "environment:1"
    shown = {each.name: (each.value, each.source) for each in config.client_entries()}
    assert shown["MILEPOST_ADDRESS"] == ("environment:1", "environment")
    assert shown["MILEPOST_CA_FILE"] == ("/ca", "file")
    monkeypatch.setenv("MILEPOST_ADDRESS", "")
    assert config.client_value(config.ADDRESS) == "file:1"
    assert config.client_value(config.API_KEY) is None
    assert config.warnings() == []


def test_broken_file_is_a_problem_of_the_client_too(settings_file):
    """The command line reads no variable from a settings file that has a broken line."""
    settings_file("MILEPOST_ADDRESS=file:1\nnonsense line\n")
    with pytest.raises(config.SettingsError, match="line 2 is not KEY=VALUE"):
        config.client_value(config.ADDRESS)


@pytest.mark.parametrize(
    ("line", "exposed"),
    [
        ("MILEPOST_API_KEY=mp_x", "MILEPOST_API_KEY"),
        ("MILEPOST_DATABASE_URL=postgresql+psycopg://u:s3cret@h/d", "MILEPOST_DATABASE_URL"),
        ("MILEPOST_WEBHOOK_KEYS=k1:aaaa", "MILEPOST_WEBHOOK_KEYS"),
        ("MILEPOST_DATABASE_URL=sqlite:////var/lib/x.db", None),
        ("MILEPOST_ADDRESS=localhost:7450", None),
    ],
)
def test_secrets_that_every_user_can_read_are_reported(settings_file, tmp_path, line, exposed):
    """A settings file with a secret is reported while every user can read it."""
    settings_file(f"{line}\n")
    file = tmp_path / "settings.env"
    file.chmod(0o644)
    line = f"{file} has {exposed} and every user can read it: chmod o-r {file}"
    assert config.warnings() == ([line] if exposed else [])
    file.chmod(0o640)
    assert config.warnings() == []


def test_key_of_the_client_is_masked(settings_file):
    """The API key is never printed."""
    settings_file("MILEPOST_API_KEY=mp_s3cret\n")
    shown = {each.name: each.value for each in config.client_entries()}
    assert shown["MILEPOST_API_KEY"] == "***"


def test_overrides_win(monkeypatch):
    """Overrides win over the environment; an override of None does not count."""
    monkeypatch.setenv("MILEPOST_DRAIN_SECONDS", "3")
    settings = config.load(log_level="debug", drain_seconds=None)
    assert (settings.log_level, settings.drain_seconds) == ("debug", 3.0)


# --- limits per principal ---


def test_rates_and_quota_can_be_configured(monkeypatch):
    """Every limit per principal follows its variable, for all principals and for a single one."""
    assert config.load().allowances == Allowances()
    monkeypatch.setenv("MILEPOST_CREATES_PER_MINUTE", "5")
    monkeypatch.setenv("MILEPOST_ACTIVE_OPERATIONS_MAX", "3")
    monkeypatch.setenv("MILEPOST_PRINCIPAL_LIMITS", '{"vip": {"creates": 500, "lists": 60}}')
    allowances = config.load().allowances
    assert allowances.of("carol") == Allowance(creates=5, active=3)
    assert allowances.of("vip") == Allowance(creates=500, lists=60, active=3)


def test_every_problem_of_principal_limits_is_reported(monkeypatch):
    """All problems with the limits of single principals are reported in one line."""
    monkeypatch.setenv("MILEPOST_PRINCIPAL_LIMITS", '{"a": {"creates": 0}, "b": {"bogus": 1}}')
    [line] = problems()
    assert line.startswith("MILEPOST_PRINCIPAL_LIMITS: a: creates must be a whole number")
    assert "; b: bogus is not one of creates" in line


@pytest.mark.parametrize(
    "url",
    ["redis://h", "rediss://:secret@h:6380/2", "redis://user:secret@[::1]:6379", "redis://h/"],
)
def test_stores_of_limits(monkeypatch, url):
    """The URL of a Redis is never printed with its password."""
    monkeypatch.setenv("MILEPOST_LIMITS_URL", url)
    found = config.load().limits_url
    assert found is not None
    assert found.get_secret_value() == url
    assert "secret" not in str(entry("MILEPOST_LIMITS_URL").value)


@pytest.mark.parametrize(
    "url", ["h:6379", "http://h", "redis://", "redis://:secret@h:0x1", "redis://h/x"]
)
def test_unusable_stores_of_limits_are_refused(monkeypatch, url):
    """An invalid URL of a Redis is refused, without its secrets in the message."""
    monkeypatch.setenv("MILEPOST_LIMITS_URL", url)
    [line] = problems()
    assert line.startswith("MILEPOST_LIMITS_URL: must ")
    assert "secret" not in line


def test_no_store_of_limits(monkeypatch):
    """An empty URL counts as unset."""
    monkeypatch.setenv("MILEPOST_LIMITS_URL", "")
    assert config.load().limits_url is None
