"""The `wait` preference of the Prefer header (RFC 7240)."""

import time

import pytest

from milepost.api.prefer_header import preferred_wait


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("wait=10", 10),
        ("WAIT=10", 10),
        ("respond-async, wait=10", 10),
        ("respond-async,wait=10,priority=5", 10),
        ("wait = 10", 10),
        ('wait="10"', 10),
        ("wait=10; foo=bar, return=minimal", 10),
        ('return=minimal; foo="some, text", wait=7', 7),
        ("wait=3, wait=9", 3),
        ("wait=0", 0),
        ("", 0),
        ("wait", 0),
        ("wait=", 0),
        ("wait=-1", 0),
        ("wait=1.5", 0),
        ("wait=1e3", 0),
        ("wait=\u0661", 0),
        ("wait=99999999999999999999", 0),
        ("waiting=5", 0),
        ("x-wait=5", 0),
        ('comment="wait=5"', 0),
        (",,,;=;==", 0),
    ],
)
def test_wait_is_found_among_preferences(value, seconds):
    """The first `wait` preference counts; malformed preferences are ignored."""
    assert preferred_wait([("other", "wait=99"), ("prefer", value)]) == seconds


def test_preferences_may_come_in_several_headers():
    """Several headers are read as one with commas between; bytes are ignored."""
    assert preferred_wait([("prefer", "respond-async"), ("prefer", "wait=4")]) == 4
    assert preferred_wait([("prefer", b"wait=4")]) == 0
    assert preferred_wait([]) == 0


def test_hostile_preferences_are_read_in_linear_time():
    """The time to read a header of the maximum size is proportional to its length."""
    start = time.process_time()
    for part in (
        "a" * 16_000,
        "=" * 16_000,
        'a="' * 5_000,
        "a;" * 8_000,
        " " * 16_000,
        "a" + " " * 16_000 + "x",
        "a," * 8_000,
    ):
        assert preferred_wait([("prefer", part)]) == 0
    assert time.process_time() - start < 0.5
