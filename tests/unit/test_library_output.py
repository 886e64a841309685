"""What libraries and the interpreter report becomes log lines, without the text of exceptions."""

import asyncio
import gc
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import structlog

from milepost import telemetry
from tests.waiting import until

SECRET = "canary5c1"  # noqa: S105 - stands for text of a caller
Look = Callable[[], list[Mapping[str, Any]]]


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Look]:
    """A function that returns the log lines since its last call, and fails on other output."""
    before, handlers = structlog.get_config(), logging.root.handlers[:]
    telemetry.configure_logs(level="info", as_json=True)
    monkeypatch.setattr(telemetry.library_output, "log", structlog.get_logger())
    with telemetry.logged_library_output():
        yield lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    structlog.configure(**before)
    logging.root.handlers[:] = handlers


def fail() -> None:
    """Raise an exception with text of a caller."""
    raise ValueError(f"unexpected header: {SECRET}")


class FailsAtTheEnd:
    """An object whose finalizer raises."""

    def __del__(self) -> None:
        """Raise."""
        fail()


def test_record_with_a_traceback(logged):
    """A record has the class and the places of its exception, and not its text."""
    try:
        fail()
    except ValueError:
        logging.getLogger("some.library").exception("not\nhandled: %s", "peer")
    (line,) = logged()
    assert line["event"] == "library reported an error"
    assert (line["source"], line["text"]) == ("some.library", "not\\nhandled: peer")
    assert line["error"] == "ValueError"
    assert line["places"].split(" < ")[0].endswith("fail")
    assert SECRET not in json.dumps(line)


def test_captured_records_are_not_logged(logged):
    """Inside of a capture, records of this thread are collected; those of others are logged."""
    other = threading.Thread(target=logging.getLogger("other").error, args=("of another thread",))
    with telemetry.library_output.captured_library_output() as found:
        logging.getLogger("some.library").error("refused: %s", "peer")
        other.start()
        other.join()
    assert found == ["refused: peer"]
    logging.getLogger("some.library").error("afterwards")
    assert [line["text"] for line in logged()] == ["of another thread", "afterwards"]


def test_malformed_record(logged):
    """A record whose arguments do not fit its text is logged as its text."""
    arguments = ("one",)
    logging.getLogger("some.library").warning("%d of %d", *arguments)
    (line,) = logged()
    assert (line["event"], line["text"]) == ("library reported a warning", "%d of %d")


def test_warning(logged):
    """A warning of Python is a line."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old\nfashioned", stacklevel=1)
    (line,) = logged()
    assert "old\\nfashioned" in line["text"]


def test_printed_lines(logged):
    """What is printed to standard error is a line each."""
    with telemetry.logged_library_output():  # again: pytest has replaced the stream meanwhile
        sys.stderr.write('first\n{"event": ')
        sys.stderr.write('"forged"}\n')
    assert [(line["source"], line["text"]) for line in logged()] == [
        ("standard error", "first"),
        ("standard error", '{"event": "forged"}'),
    ]


def test_failed_thread_and_finalizer(logged):
    """A thread that fails, and an exception that Python ignores, are lines."""
    thread = threading.Thread(target=fail, name="worker-1")
    threading.excepthook(threading.ExceptHookArgs((ValueError, ValueError(SECRET), None, thread)))
    FailsAtTheEnd()
    gc.collect()
    lines = logged()
    assert [line["error"] for line in lines] == ["ValueError", "ValueError"]
    assert "worker-1" in lines[0]["text"]
    assert SECRET not in json.dumps(lines)


async def test_failed_task_and_other_threads(logged):
    """A task that fails unseen, and a record of another thread, are lines."""
    telemetry.log_errors_of_loop()
    seen: list[Mapping[str, Any]] = []

    def found(count: int) -> bool:
        seen.extend(logged())
        return len(seen) == count

    async def fail_later() -> None:
        fail()

    task = asyncio.ensure_future(fail_later())
    await asyncio.wait({task})
    del task
    gc.collect()
    await until(lambda: found(1))
    await asyncio.to_thread(logging.getLogger("some.library").error, "from a thread")
    await until(lambda: found(2))
    assert [line["source"] for line in seen] == ["asyncio", "some.library"]
    assert SECRET not in json.dumps(seen)
