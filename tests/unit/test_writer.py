"""Log lines arrive in order, and a slow reader does not block the event loop."""

import asyncio
import os
import time
from collections.abc import Iterator

import pytest

from milepost import telemetry
from milepost.telemetry import writer
from milepost.telemetry.writer import LineWriter
from tests.machine import slowdown
from tests.waiting import until

LINE = "x" * 999


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The read end and the write end of a pipe."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def writer_to(descriptor: int) -> LineWriter:
    """Return a writer to this descriptor."""
    return LineWriter(descriptor, "{} lost".format)


def lost() -> float:
    """Return the number of lost lines."""
    return telemetry.registry.get_sample_value("milepost_log_lines_lost_total") or 0.0


async def read(descriptor: int, lines: int) -> list[str]:
    """Read `count` lines."""
    text = b""
    while text.count(b"\n") < lines:
        text += await asyncio.to_thread(os.read, descriptor, 1 << 16)
    return text.decode().splitlines()


async def test_lines_wait_for_a_slow_reader(pipe):
    """More lines than a pipe holds do not block; all of them arrive later, in order."""
    source, sink = pipe
    lines = writer_to(sink)
    begun = time.monotonic()
    for number in range(1_000):
        lines.msg(f"{number} {LINE}")
        if number % 10 == 0:
            await asyncio.sleep(0)
    assert time.monotonic() - begun < 1.0 * slowdown()
    assert [int(line.split()[0]) for line in await read(source, 1_000)] == list(range(1_000))


async def test_lines_of_two_writers_stay_whole(pipe):
    """Two processes that write to one slow pipe do not cut each other's lines."""
    source, sink = pipe
    first, second = writer_to(sink), writer_to(sink)
    for _ in range(100):
        first.msg(LINE)
    await asyncio.sleep(0)  # the pipe is full, and lines wait
    found = os.read(source, 1 << 16)
    second.msg("second")
    await asyncio.sleep(0)
    while found.count(b"\n") < 101:
        found += await asyncio.to_thread(os.read, source, 1 << 16)
    assert sorted(found.decode().splitlines()) == ["second", *[LINE] * 100]


async def test_lost_lines_are_counted_and_reported(pipe, monkeypatch):
    """When the buffer is full lines are lost, and their number is logged before the next one."""
    monkeypatch.setattr(writer, "MAX_BUFFER_BYTES", 1_000)
    source, sink = pipe
    lines = writer_to(sink)
    before = lost()
    lines.msg(70 * LINE)
    await asyncio.sleep(0)  # the pipe is full, and more than MAX_BUFFER_BYTES waits
    for _ in range(3):
        lines.msg("never seen")
    await until(lambda: lost() == before + 3)
    await read(source, 1)
    lines.msg("seen")
    assert await read(source, 2) == ["3 lost", "seen"]


async def test_line_without_a_reader_is_lost():
    """Without a reader lines are lost, and no call fails."""
    source, sink = os.pipe()
    os.close(source)
    lines = writer_to(sink)
    before = lost()
    lines.msg("into nothing")
    await until(lambda: lost() == before + 1)
    os.close(sink)


def test_line_outside_of_a_loop_is_written_at_once(pipe):
    """Without an event loop a line is written before the call returns."""
    source, sink = pipe
    writer_to(sink).msg("at once")
    assert os.read(source, 100) == b"at once\n"


def test_lines_of_a_loop_that_ended_are_not_kept(pipe):
    """Lines that a closed loop left in the buffer are written with the next line."""
    source, sink = pipe
    lines = writer_to(sink)

    async def last() -> None:
        lines.msg("last words")
        asyncio.get_running_loop().stop()

    loop = asyncio.new_event_loop()
    task = loop.create_task(last())
    loop.run_forever()
    loop.close()
    assert task.done()
    lines.msg("afterwards")
    assert os.read(source, 100) == b"last words\nafterwards\n"


def test_exit_does_not_wait_for_ever(pipe, monkeypatch):
    """A reader that does not read delays the exit of the process only briefly."""
    monkeypatch.setattr(writer, "EXIT_TIMEOUT_MS", 50)
    _source, sink = pipe
    begun = time.monotonic()
    writer_to(sink).msg(100 * LINE)
    assert 0.05 <= time.monotonic() - begun < 5 * slowdown()
