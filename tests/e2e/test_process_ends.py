"""Processes that end, are restarted one by one, or lose their supervisor."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from contextlib import AsyncExitStack

import psutil
import pytest
import sqlalchemy as sa

from milepost.storage.tables import operations
from milepost_client import Milepost, Status
from tests.e2e.processes import (
    MAX_CHANNELS,
    PROCESSES,
    create_on_new_connections,
    ended,
    is_free,
    send,
    serving,
    wait_until_all_ready,
)
from tests.e2e.service import START_SECONDS, STOP_SECONDS, Service
from tests.e2e.working import working
from tests.machine import environment, free_port
from tests.waiting import eventually, until

pytestmark = pytest.mark.timeout(600)  # every test starts up to five processes

CLIENTS = 8
LIVES = 5
"""Operations of each client before and after what happens to the processes."""
PACE_S = 0.05
CREATED = "milepost_transitions_total"


@pytest.fixture
def service(postgres_url, tmp_path):
    """A service of two processes, both ready."""
    with Service(postgres_url, tmp_path, processes=str(PROCESSES)) as service:
        wait_until_all_ready(service)
        yield service


class Work:
    """Clients, each on a connection of its own, that lead operations through their lives."""

    def __init__(self, clients: list[Milepost]) -> None:
        self._clients = clients
        self._stop = False
        self.done: list[list[str]] = [[] for _ in clients]
        """The ids of completed operations, for each client."""

    async def run(self) -> None:
        """Work until `stop`; any failure that the retries of the clients leave fails the test."""
        async with asyncio.TaskGroup() as group:
            for client, done in zip(self._clients, self.done, strict=True):
                group.create_task(self._live(client, done))

    async def more(self) -> None:
        """Wait until every client has completed some more operations."""
        before = [len(done) for done in self.done]
        await until(
            lambda: all(
                len(done) >= count + LIVES for done, count in zip(self.done, before, strict=True)
            ),
            START_SECONDS,
        )

    def stop(self) -> None:
        """Let the clients finish what they are at."""
        self._stop = True

    async def _live(self, client: Milepost, done: list[str]) -> None:
        while not self._stop:
            operation = await client.create("test.life")
            async with client.work(operation.id) as work:
                await work.progress(0.5)
                work.result = operation.id
            assert await client.result(operation.id) == operation.id
            done.append(operation.id)
            await asyncio.sleep(PACE_S)  # leaves processor time to the processes that start


async def clients_of(service, stack, count=CLIENTS):
    """Return clients of one principal, each on a connection of its own."""
    key = service.api_key("both", roles=("CALLER", "WORKER"), functions=("*",))
    return [
        await stack.enter_async_context(Milepost(service.address, api_key=key))
        for _ in range(count)
    ]


async def working_during(service, event):
    """Let clients work before, during and after the event; return the ids of the operations."""
    async with AsyncExitStack() as stack:
        work = Work(await clients_of(service, stack))
        running = asyncio.create_task(work.run())
        for step in (work.more, event, work.more):
            stepping = asyncio.create_task(step())
            await asyncio.wait([stepping, running], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            stepping.result()
        work.stop()
        await running
    return [operation_id for done in work.done for operation_id in done]


def wait_until_logged(service, event):
    """Wait until the log has a line of this event."""
    eventually(lambda: f'"event":"{event}"' in service.log(), within=2 * START_SECONDS, what=event)


async def test_killed_process_is_replaced(service):
    """A kill -9 of one process under calls loses nothing acknowledged, and the process is back."""
    victim = next(iter(serving(service).values()))

    async def kill():
        victim.kill()
        await asyncio.to_thread(wait_until_logged, service, "process ended")
        await asyncio.to_thread(wait_until_all_ready, service)

    ids = await working_during(service, kill)
    line = service.logged(event="process ended")
    assert (line["process"], line["signal"], line["restart_s"]) == (1, "SIGKILL", 1.0)
    assert victim.pid not in serving(service)
    completed = sa.select(operations.c.id).where(operations.c.status == Status.COMPLETED)
    with service.engine.connect() as connection:
        assert set(ids) <= set(connection.scalars(completed))


async def test_rolling_restart(service):
    """SIGHUP replaces every process under calls, watches and streams, and no call fails."""
    before = serving(service)

    async def restart():
        send(service, signal.SIGHUP)
        await asyncio.to_thread(wait_until_logged, service, "rolling restart finished")
        assert not before.keys() & serving(service).keys()

    async def streamed(job):
        while not finish.is_set():
            await job.progress(0.5)
            await asyncio.sleep(0.05)  # the pace of the work
        return "done"

    async def watched(client, operation_id):
        return [operation async for operation in client.watch(operation_id)]

    finish = asyncio.Event()
    async with AsyncExitStack() as stack:
        callers = await clients_of(service, stack)
        await stack.enter_async_context(working(service, "test.stream", streamed))
        created = [await caller.create("test.stream") for caller in callers]
        watches = [
            asyncio.create_task(watched(caller, operation.id))
            for caller, operation in zip(callers, created, strict=True)
        ]
        await working_during(service, restart)
        finish.set()
        for watch in watches:
            last = (await asyncio.wait_for(watch, START_SECONDS))[-1]
            assert (last.status, last.attempt) == (Status.COMPLETED, 1)


def test_metrics_survive_a_rolling_restart(service):
    """The counters go on where they were, with all that the ended processes counted."""
    alice = service.client("alice")
    create_on_new_connections(service, alice, MAX_CHANNELS)
    send(service, signal.SIGHUP)
    wait_until_logged(service, "rolling restart finished")
    assert service.metric(CREATED, transition="create") == MAX_CHANNELS
    create_on_new_connections(service, alice, 1)
    assert service.metric(CREATED, transition="create") == MAX_CHANNELS + 1
    assert service.metric("milepost_process_restarts_total") == 0


def test_rolling_restart_stops_at_a_problem(postgres_url, tmp_path, monkeypatch):
    """Processes that cannot start with changed settings replace none of those that serve."""
    file = tmp_path / "settings"
    file.write_text("MILEPOST_DRAIN_SECONDS=5\n", encoding="utf-8")
    monkeypatch.setattr(
        "tests.e2e.service.environment",
        lambda **settings: {**environment(**settings), "MILEPOST_CONFIG_FILE": str(file)},
    )
    with Service(postgres_url, tmp_path, processes=str(PROCESSES)) as service:
        wait_until_all_ready(service)
        before = serving(service).keys()
        file.write_text("MILEPOST_DRAIN_SECONDS=soon\n", encoding="utf-8")
        send(service, signal.SIGHUP)
        wait_until_logged(service, "rolling restart stopped")
        assert service.log().count("error: MILEPOST_DRAIN_SECONDS") == 1
        assert serving(service).keys() == before
        assert service.is_ready()


async def test_sigterm_drains_every_process(service):
    """SIGTERM answers the waiting calls of every process, and ends all with exit code 0."""
    processes = serving(service)
    async with AsyncExitStack() as stack:
        clients = await clients_of(service, stack, MAX_CHANNELS // 4)
        created = [await client.create("test.wait") for client in clients]
        waits = [
            asyncio.create_task(client.result(operation.id, timeout=2 * STOP_SECONDS))
            for client, operation in zip(clients, created, strict=True)
        ]
        await until(lambda: service.metric("milepost_rpcs_running") == len(waits), START_SECONDS)
        send(service, signal.SIGTERM)
        assert await asyncio.to_thread(service.end) == 0
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
    assert ended(processes)
    for process in range(1, PROCESSES + 1):
        assert service.log_lines(event="stopped", process=process)
    assert not service.log_lines(event="calls still running after the drain")


def test_second_signal_ends_all_processes(postgres_url, tmp_path):
    """A second signal ends the supervisor and its processes at once."""
    service = Service(postgres_url, tmp_path, processes=str(PROCESSES), not_ready_seconds="3600")
    service.start()
    wait_until_all_ready(service)
    processes = serving(service)
    send(service, signal.SIGTERM)
    eventually(lambda: service.probe("/readyz")[0] == 503, within=START_SECONDS, what="draining")
    send(service, signal.SIGINT)
    assert service.end() == 128 + signal.SIGINT
    eventually(lambda: ended(processes), within=START_SECONDS, what="ended")


def test_killed_supervisor_leaves_no_process(service):
    """After a kill -9 of the supervisor its processes drain and end, and the port is free."""
    processes = serving(service)
    service.kill()
    eventually(lambda: ended(processes), within=STOP_SECONDS, what="ended")
    for process in range(1, PROCESSES + 1):
        assert service.log_lines(event="supervisor lost", process=process)
        assert service.log_lines(event="stopped", process=process)
    eventually(lambda: is_free(service.address), within=STOP_SECONDS, what="a free port")


def test_signal_to_hang_up_ends_no_process(service):
    """SIGHUP to the processes themselves does nothing: it may be sent to all by their name."""
    before = serving(service)
    for each in before.values():
        each.send_signal(signal.SIGHUP)
    service.client("alice").create()
    assert serving(service).keys() == before.keys()
    assert not service.log_lines(event="process ended")


def test_closed_terminal_stops_the_service(postgres_url):
    """When its terminal is closed the service drains, instead of running on without one."""
    ours, theirs = pty.openpty()
    settings = environment(
        database_url=postgres_url,
        listen=f"127.0.0.1:{free_port()}",
        http_listen="",
        processes=str(PROCESSES),
    )
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, str(theirs)],
        env=settings,
        pass_fds=[theirs],
        start_new_session=True,
    )
    os.close(theirs)
    try:
        written = b""
        while b"serving" not in written:
            written += os.read(ours, 65_536)
        processes = {each.pid: each for each in psutil.Process(process.pid).children()}
        assert processes
        os.close(ours)
        assert process.wait(STOP_SECONDS) == 0
        assert ended(processes)
    finally:
        process.kill()
        process.wait()


ON_TERMINAL = """
import fcntl, os, sys, termios
terminal = int(sys.argv[1])
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
for stream in range(3):
    os.dup2(terminal, stream)
os.execv(sys.executable, [sys.executable, "-m", "milepost", "serve"])
"""
"""Makes the terminal that of its session, and becomes the service."""
