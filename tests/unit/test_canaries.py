"""The detector of secrets finds every leak, and nothing else."""

import base64

import pytest

from tests import canaries
from tests.canaries import SHOWN, Canaries

SECRETS = ["hunter2hunter2hunter2", canaries.fresh(), "whsec_" + 20 * "aB3"]


@pytest.mark.parametrize("secret", SECRETS, ids=["word", "fresh", "prefixed"])
@pytest.mark.parametrize("before", ["", "x", "xy", "xyz", '{"key":"'])
@pytest.mark.parametrize("after", ["", "x", "xy", '"}'])
def test_every_form_is_found_in_every_place(secret, before, after):
    """A secret within longer text is found plain, in hex, and in base64 at every alignment."""
    text = f"{before}{secret}{after}".encode()
    for form in (
        text,
        text.hex().encode(),
        text.hex().upper().encode(),
        base64.b64encode(text),
        base64.urlsafe_b64encode(text),
        base64.b64encode(text).rstrip(b"="),
    ):
        detector = Canaries()
        detector.guard("password", secret)
        detector.saw("a span", b"\x00\n\x12" + form + b"\xff")
        (leak,) = detector.leaks()
        assert leak.startswith("password in ")
        assert leak.endswith(", in a span")
        assert secret not in leak


def test_watched_files_are_searched_at_the_end(tmp_path):
    """Text that is written to a watched file later is searched; a missing file has no leak."""
    detector = Canaries()
    secret = detector.fresh("API key")
    detector.watch(tmp_path / "late.log")
    detector.watch(tmp_path / "never.log")
    assert detector.leaks() == []
    (tmp_path / "late.log").write_text(f'{{"event": "oops", "key": "{secret}"}}\n')
    assert detector.leaks() == ["API key in plain, in the log late.log"]


def test_errors_of_callers_are_searched():
    """A secret in the sentence or in the trailing metadata of a refusal is found."""

    class Refused:
        def details(self) -> str:
            return "wrong password"

        def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
            return (("grpc-status-details-bin", b"\x08\x03" + secret.encode()),)

    detector = Canaries()
    secret = detector.fresh("password")
    detector.saw_error(Refused())
    assert detector.leaks() == ["password in plain, in an error"]


def test_text_without_the_secret_has_no_leak():
    """Other secrets, other ids and a few characters of the secret are no leak."""
    detector = Canaries()
    secret = detector.fresh("API key")
    detector.saw(
        "a page", canaries.fresh() + " op_" + 24 * "0" + base64.b64encode(b"x" * 99).decode()
    )
    detector.saw("a page", secret[: SHOWN - 1] + "!" + secret[1:])
    assert detector.leaks() == []


def test_secrets_in_settings_are_guarded():
    """The password in an address is guarded; a text so short that it may occur by chance is not."""
    detector = Canaries()
    password = canaries.fresh()
    detector.guard_setting("database_url", f"postgresql+psycopg://milepost:{password}@db/milepost")
    detector.guard_setting("redis_url", "redis://127.0.0.1:6379/0")
    detector.guard_setting("master_key", "short")
    detector.saw("a log", "redis://127.0.0.1:6379/0 short postgresql+psycopg://milepost:***@db")
    assert detector.leaks() == []
    detector.saw("a log", f"could not connect with {password}")
    assert detector.leaks() == ["setting database_url in plain, in a log"]
    with pytest.raises(ValueError, match="too short"):
        detector.guard("password", "short")
