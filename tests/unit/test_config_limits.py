"""Settings that are limits: of operations, of attempts, and of one principal."""

from datetime import timedelta
from typing import Any, Final

import pytest

from milepost import config
from milepost.domain.limits import Limits
from milepost.domain.rates import Allowance, Allowances
from tests.unit.loaded_settings import entry, problems

pytestmark = pytest.mark.usefixtures("no_settings")


def test_defaults_are_the_limits_of_the_product():
    """The default limits are those that the product promises."""
    assert config.load().limits == Limits()


def test_limits_can_be_configured(monkeypatch):
    """A limit follows its variable."""
    monkeypatch.setenv("MILEPOST_TTL_MAX_SECONDS", "1209600")
    monkeypatch.setenv("MILEPOST_METADATA_BYTES_MAX", "10")
    limits = config.load().limits
    assert (limits.ttl_max, limits.metadata_bytes) == (timedelta(days=14), 10)


ATTEMPTS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "INITIAL_BACKOFF_DEFAULT_SECONDS": ("2", {"initial_backoff_default": timedelta(seconds=2)}),
    "INITIAL_BACKOFF_MAX_SECONDS": ("90", {"initial_backoff_max": timedelta(seconds=90)}),
    "BACKOFF_MULTIPLIER_DEFAULT": ("1.5", {"backoff_multiplier_default": 1.5}),
    "BACKOFF_MULTIPLIER_MAX": ("3", {"backoff_multiplier_max": 3.0}),
    "MAX_BACKOFF_DEFAULT_SECONDS": ("60", {"max_backoff_default": timedelta(minutes=1)}),
    "MAX_BACKOFF_MAX_SECONDS": ("600", {"max_backoff_max": timedelta(minutes=10)}),
    "RETRY_DELAY_MAX_SECONDS": ("60", {"retry_delay_max": timedelta(minutes=1)}),
    "RELEASE_DELAY_MAX_SECONDS": ("60", {"release_delay_max": timedelta(minutes=1)}),
    "PHASE_TIMEOUT_MIN_SECONDS": ("5", {"phase_timeout_min": timedelta(seconds=5)}),
    "PHASE_TIMEOUT_MAX_SECONDS": ("60", {"phase_timeout_max": timedelta(minutes=1)}),
    "SCHEDULE_DAYS_MAX": ("7", {"schedule_max": timedelta(days=7)}),
    "GRACE_MAX_SECONDS": ("60", {"grace_max": timedelta(minutes=1)}),
    "CHECKPOINT_BYTES_MAX": ("1024", {"checkpoint_bytes": 1024}),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_limits_of_attempts_can_be_configured(monkeypatch, name):
    """Each limit of attempts follows its own variable, and no other limit does."""
    value, changed = ATTEMPTS[name]
    monkeypatch.setenv(f"MILEPOST_{name}", value)
    assert config.load().limits == Limits(**changed)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("LEASE_DEFAULT_SECONDS", "1", "must be at least the minimum, 5.0"),
        ("PAGE_SIZE_DEFAULT", "101", "must be at most the maximum, 100"),
        ("INITIAL_BACKOFF_DEFAULT_SECONDS", "3601", "must be at most the maximum, 3600.0"),
        ("BACKOFF_MULTIPLIER_DEFAULT", "11", "must be at most the maximum, 10.0"),
        ("BACKOFF_MULTIPLIER_DEFAULT", "0.5", "greater than or equal to 1"),
        ("BACKOFF_MULTIPLIER_MAX", "nan", "finite"),
        ("MAX_BACKOFF_DEFAULT_SECONDS", "86400.5", "less than or equal to 86400"),
        ("PHASE_TIMEOUT_MAX_SECONDS", "0.5", "must be at least the minimum, 1.0"),
        ("SCHEDULE_DAYS_MAX", "0", "greater than 0"),
    ],
)
def test_impossible_limits_are_refused(monkeypatch, name, value, text):
    """A default outside of its limits, and a limit out of range, are refused with the reason."""
    monkeypatch.setenv(f"MILEPOST_{name}", value)
    [line] = problems()
    assert line.startswith(f"MILEPOST_{name}: ")
    assert text in line.lower()


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
