"""Processes as their supervisor sees them: small programs instead of the service."""

import asyncio
import signal
import sys

import psutil
import pytest

from milepost.config import load
from milepost.supervisor import replica, slot
from milepost.supervisor.port import Ports
from milepost.supervisor.replica import Replica
from milepost.supervisor.slot import Slot
from milepost.supervisor.supervisor import Supervisor
from tests.waiting import eventually

TIMEOUT_S = 30.0
ANSWERS_ONCE = """
import json, os, sys, time
channel = int(sys.argv[-1].split(",")[1])
os.read(channel, 1)
os.write(channel, json.dumps({"problem": None, "metrics": "page"}).encode() + b"\\n")
time.sleep(3600)
"""
REPORTS_AT_ITS_END = f"""
import signal
def end(*_):
    last = json.dumps({{"problem": "draining", "metrics": "last page"}})
    os.write(channel, last.encode() + b"\\n")
    raise SystemExit
signal.signal(signal.SIGTERM, end)
{ANSWERS_ONCE}"""
LEAVES_ITS_CHANNEL = """
import os, sys, time
os.close(int(sys.argv[-1].split(",")[1]))
time.sleep(3600)
"""
IGNORES_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{ANSWERS_ONCE}"
ENDS = "raise SystemExit(3)"


async def start(program, number=1):
    """Start a program in place of `milepost serve`."""
    ports = Ports(grpc="127.0.0.1:1")
    return await Replica.start(number, ports, (), (sys.executable, "-c", program))


async def code(process):
    """Return the exit code of a process once it has ended."""
    async with asyncio.timeout(TIMEOUT_S):
        return await process.end


def has_ended(pid):
    """Return True if the process has ended, whether or not its exit code was taken."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_process_that_hangs_is_killed(lines, monkeypatch):
    """A process that has answered and no longer does is killed, with a line in the log."""
    monkeypatch.setattr(replica, "ASK_INTERVAL_S", 0.01)
    monkeypatch.setattr(replica, "MAX_SILENCE_S", 0.5)
    process = await start(ANSWERS_ONCE)
    assert await process.is_ready_or_ended()
    assert await code(process) == -signal.SIGKILL
    assert process.problem == "ended"
    assert "process does not answer" in {line["event"] for line in lines()}


async def test_process_without_its_channel_is_killed(monkeypatch):
    """A process that has closed its connection and does not end is killed."""
    monkeypatch.setattr(replica, "MAX_EXIT_S", 0.1)
    process = await start(LEAVES_ITS_CHANNEL)
    assert not await process.is_ready_or_ended()
    assert await code(process) == -signal.SIGKILL


async def test_process_that_does_not_stop_is_killed():
    """A process that does not end in its grace is killed."""
    process = await start(IGNORES_SIGTERM)
    assert await process.is_ready_or_ended()
    assert await process.stop(0.1) == -signal.SIGKILL


async def test_degraded_parts_of_a_process(monkeypatch):
    """The supervisor knows the parts that do not work in a process, which is ready."""
    monkeypatch.setenv("MILEPOST_DATABASE_URL", "postgresql+psycopg://u@127.0.0.1/d")
    degraded = '"degraded": {"limits": "Redis does not answer"}'
    process = await start(ANSWERS_ONCE.replace('"metrics": "page"', degraded))
    assert await process.is_ready_or_ended()
    supervisor = Supervisor(load(processes=2), Ports(grpc="127.0.0.1:1"), ())
    supervisor._slots[0].replica = process
    assert supervisor._problem is None
    assert supervisor._degraded == {"limits": "Redis does not answer"}
    await process.stop(TIMEOUT_S)


async def test_last_metrics_remain(monkeypatch):
    """A process that does not answer in time has the page that it sent last."""
    monkeypatch.setattr(replica, "METRICS_TIMEOUT_S", 0.01)
    process = await start(ANSWERS_ONCE)
    assert await process.is_ready_or_ended()
    assert await process.fetch_metrics() == "page"
    await process.stop(TIMEOUT_S)
    assert process.metrics == "page"


async def test_last_report_is_read_after_the_end():
    """The last report of a process is taken, also if the supervisor asks before it reads."""
    process = await start(REPORTS_AT_ITS_END)
    assert await process.is_ready_or_ended()
    process.signal(signal.SIGTERM)
    eventually(lambda: has_ended(process.pid), within=TIMEOUT_S, what="ended")
    assert await process.fetch_metrics() == "last page"
    assert await code(process) == 0


async def pauses_of(place, count, monkeypatch):
    """Keep a process in the place until it has ended so many times; return the pauses after it."""
    pauses = []

    def log_end(_replica, restart_s):
        pauses.append(restart_s)
        if len(pauses) == count:  # in its pause, in which no process is being started
            keeping.cancel()

    monkeypatch.setattr(slot, "log_end", log_end)
    keeping = asyncio.create_task(place.keep())
    await asyncio.wait([keeping], timeout=2 * TIMEOUT_S)
    assert keeping.cancelled()
    return pauses


async def test_pauses_between_restarts_are_bounded(monkeypatch):
    """A process that ends again and again is started after growing pauses, up to the longest."""
    monkeypatch.setattr(slot, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(slot, "MAX_PAUSE_S", 0.04)
    place = Slot(1, lambda number: start(ENDS, number))
    pauses = await pauses_of(place, 5, monkeypatch)
    assert pauses == [0.01, 0.02, 0.04, 0.04, 0.04]
    assert place.restarts >= 4


async def test_stable_process_is_started_again_at_once(monkeypatch):
    """A process that ran for long is replaced without a pause."""
    monkeypatch.setattr(slot, "STABLE_S", 0.0)
    place = Slot(1, lambda number: start(ENDS, number))
    assert await pauses_of(place, 2, monkeypatch) == [0.0, 0.0]


@pytest.mark.parametrize("program", [ENDS, LEAVES_ITS_CHANNEL])
async def test_renewal_without_success_changes_nothing(monkeypatch, program):
    """If the new process does not become ready, the old one remains in charge."""
    monkeypatch.setattr(slot, "START_TIMEOUT_S", 0.5)
    programs = iter((ANSWERS_ONCE, program))
    place = Slot(1, lambda number: start(next(programs), number))
    old = await place.fill()
    assert await old.is_ready_or_ended()
    assert not await place.renew(TIMEOUT_S)
    assert place.replica is old
    assert not old.end.done()
    await old.stop(TIMEOUT_S)
