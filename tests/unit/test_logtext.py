"""Escaping of text of callers in log lines."""

import json
import math
import re
from collections.abc import Iterator

import pytest
import structlog

from milepost import telemetry
from milepost.logtext import as_json_line, escaped, escaped_lines

HOSTILE = {
    "line feed": "a\n{forged}",
    "carriage return": "a\r{forged}",
    "line separator": "a\u2028{forged}",
    "paragraph separator": "a\u2029{forged}",
    "next line": "a\x85{forged}",
    "vertical tab": "a\x0b{forged}",
    "clear the screen": "a\x1b[2J",
    "title of the window": "a\x1b]0;owned\x07",
    "escape of eight bits": "a\x9b2J",
    "backspace": "a\x08\x08b",
    "NUL": "a\x00b",
    "right to left": "a\u202eb",
    "isolate": "a\u2066b",
    "zero width": "a\u200bb",
    "byte order mark": "a\ufeffb",
    "tag": "a\U000e0041b",
    "lone surrogate": "a\ud800b",
}
hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


@pytest.fixture(autouse=True)
def _configuration() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@hostile
def test_hostile_text_is_escaped(text):
    """Every non-printable character becomes its escape; the others are unchanged."""
    found = escaped(text)
    assert found.isprintable()
    assert found.startswith("a\\")
    assert found.encode().decode("unicode_escape", "surrogatepass") == text


@pytest.mark.parametrize("text", ["", "video.transcode", "größer 日本語 🎬", "C:\\temp", "100 %"])
def test_printable_text_is_unchanged(text):
    """Printable text of every language is logged unchanged."""
    assert escaped(text) == text


def test_nested_values_are_escaped():
    """Items and keys of lists and mappings, and other objects, are escaped; numbers are kept."""
    given = {"n\n": ["a\x1b", ("b\r", 1)], "f": 0.5, "b": True, "none": None, "o": OSError("x\n")}
    assert escaped(given) == {
        "n\\n": ["a\\x1b", ["b\\r", 1]],
        "f": 0.5,
        "b": True,
        "none": None,
        "o": "x\\n",
    }


@hostile
@pytest.mark.parametrize("as_json", [True, False])
def test_hostile_text_makes_one_printable_line(capfd, text, as_json):
    """In both formats an event with hostile text is one line of printable characters."""
    telemetry.configure_logs(level="info", as_json=as_json)
    structlog.get_logger().warning("call refused", operation_id=text, principal=[text])
    written = capfd.readouterr().err
    assert written.endswith("\n")
    line = re.sub(r"\x1b\[\d*m", "", written[:-1])  # the colours of the renderer itself
    assert line.isprintable()
    assert "\\" in line
    if as_json:
        assert json.loads(line)["operation_id"] == escaped(text)


def test_traceback_cannot_forge_a_line(capfd):
    """In text format the lines of a traceback are indented, whatever the exception says."""
    telemetry.configure_logs(level="info", as_json=False)
    error = ValueError("bad\n2026-01-01 [info] operation changed\x1b[2J")
    structlog.get_logger().error("call failed", exc_info=error)
    first, *others = capfd.readouterr().err.rstrip("\n").splitlines()
    assert "call failed" in first
    assert any("operation changed" in line for line in others)
    assert all(line.startswith("    | ") for line in others[1:])
    assert not any("\x1b[2J" in line for line in others)


def test_traceback_in_json_keeps_its_lines(capfd):
    """In JSON a traceback is one string on one line, and its line breaks stay."""
    telemetry.configure_logs(level="info", as_json=True)
    structlog.get_logger().error("call failed", exc_info=ValueError("bad\n\x1b[2J\u2028"))
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["exception"] == "ValueError: bad\n\\x1b[2J\\u2028"
    assert escaped_lines("a\r\nb", margin="> ") == "a\\r\n> b"


def test_json_of_a_line():
    """A line is valid JSON for every type of value, also for types that JSON lacks."""
    event = {
        "event": "operation changed",
        "text": "a b/c ä",
        "number": 7,
        "seconds": 0.5,
        "yes": True,
        "none": None,
        "list": ["x", 1],
    }
    assert json.loads(as_json_line(None, "info", dict(event))) == event
    odd = {"other": ValueError, "large": 2**80, "nan": math.nan, "not text": "a\udc80"}
    assert json.loads(as_json_line(None, "info", dict(odd))) == {
        "other": "<class 'ValueError'>",
        "large": str(2**80),
        "nan": None,
        "not text": "a\\udc80",
    }
    assert as_json_line(None, "info", {"text": "\x7f"}) == '{"text":"\\\\x7f"}'
