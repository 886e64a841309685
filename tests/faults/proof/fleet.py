"""The system under test: two replicas, their PostgreSQL, and the pipes between all of them."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
import psycopg
import sqlalchemy as sa

from milepost.domain.api_key import issue_key
from milepost.domain.operation import Role
from milepost.storage.api_keys import KeyRing
from milepost.storage.engine import open_engine
from milepost.webhooks.master_keys import new_key
from tests.conftest import prepare_template
from tests.e2e.service import START_SECONDS, Service
from tests.faults.proof.disk import SmallDisk
from tests.faults.proof.pipe import Pipe, pipe
from tests.postgres import PostgresCluster
from tests.waiting import eventually

REPLICAS: Final = 2
TEMPLATE: Final = "proof_template"
_SESSIONS: Final = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE application_name LIKE 'milepost%' AND pid <> pg_backend_pid()"
)
WEBHOOK_TIMEOUT_S: Final = 0.5


@dataclass(slots=True)
class Database:
    """One database of a cluster that may be killed."""

    cluster: PostgresCluster
    name: str
    disk: SmallDisk | None = None

    @property
    def url(self) -> str:
        """Its address without a pipe."""
        return self.cluster.url(self.name)

    def create(self) -> None:
        """Create it with the newest schema."""
        with contextlib.suppress(sa.exc.ProgrammingError, psycopg.errors.DuplicateDatabase):
            self.cluster.create_database(TEMPLATE)
            prepare_template(self.cluster.url(TEMPLATE))
        self.cluster.create_database(self.name, template=TEMPLATE)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Run one statement past the service and return its rows."""
        engine = open_engine(self.url)
        try:
            with engine.begin() as connection:
                result = connection.execute(sa.text(statement))
                return [tuple(row) for row in result] if result.returns_rows else []
        finally:
            engine.dispose()

    def end_sessions(self) -> None:
        """End every session of the replicas."""
        self.execute(f"SELECT pg_terminate_backend(pid) FROM ({_SESSIONS}) AS s")  # noqa: S608

    def kill_session(self) -> None:
        """Kill the process of one session; PostgreSQL ends all others and recovers."""
        for (pid,) in self.execute(_SESSIONS):
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(int(str(pid))).kill()
                break
        eventually(self.answers, within=START_SECONDS, what="PostgreSQL answers")

    def answers(self) -> bool:
        """Return whether it accepts statements."""
        try:
            return self.execute("SELECT 1") == [(1,)]
        except sa.exc.DBAPIError:
            return False

    def full_disk(self) -> contextlib.AbstractContextManager[None]:
        """Leave its disk no room inside of the block."""
        assert self.disk is not None, "the plan fills a disk, but it has no disk to fill"
        return self.disk.full()

    def ensure_running(self) -> None:
        """Start the cluster if it has given up, and wait until it answers."""
        if not self.cluster.running:
            self.cluster.start()
        eventually(self.answers, within=START_SECONDS, what="PostgreSQL answers")


class Replica(Service):
    """One replica, which calls and is called through pipes."""

    def __init__(
        self,
        database_url: str,
        folder: Path,
        bug: str | None = None,
        clock_offset_s: float = 0.0,
        **settings: str,
    ) -> None:
        super().__init__(database_url, folder, limited=False, forked=False, **settings)
        self.clock = folder / f"clock-{self.address.rpartition(':')[2]}"
        self.step_clock(clock_offset_s)
        seeded = () if bug is None else ("--bug", bug)
        program = ("-m", "tests.faults.proof.replica", "--clock", str(self.clock), *seeded)
        self.command = (sys.executable, *program, "serve")
        self.grpc_pipe = self.http_pipe = self.database_pipe = Pipe(self.address)

    def step_clock(self, offset_s: float) -> None:
        """Let the local clock be ahead by some seconds from now on."""
        new = self.clock.with_suffix(".new")
        new.write_text(str(offset_s), encoding="ascii")
        new.replace(self.clock)

    async def restart(self, *, gently: bool) -> None:
        """Stop or kill the process, and start it again."""
        await asyncio.to_thread(self.stop if gently else self.kill)
        await asyncio.to_thread(self.start)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the process inside of the block, without its knowledge."""
        assert self.process is not None
        pid = self.process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


@dataclass(slots=True)
class Fleet:
    """The running system."""

    database: Database
    replicas: Sequence[Replica] = ()
    quotas: Mapping[str, int] = field(default_factory=dict)

    def add_principal(self, subject: str) -> str:
        """Return a new API key of a caller that is a worker for every function too."""
        key, stored = issue_key(
            subject=subject, roles=[Role.CALLER, Role.WORKER], functions=["proof.*"]
        )
        engine = open_engine(self.database.url)
        KeyRing(engine).add(stored)
        engine.dispose()
        return key


@asynccontextmanager
async def running_fleet(
    database: Database,
    folder: Path,
    webhook_port: int,
    *,
    bug: str | None = None,
    quotas: Mapping[str, int] | None = None,
    clock_offset_s: float = 0.0,
    **settings: str,
) -> AsyncIterator[Fleet]:
    """Run the replicas on a database, each behind pipes of its own."""
    fleet = Fleet(database, quotas=quotas or {})
    all_settings = _settings(webhook_port, fleet.quotas) | settings
    async with contextlib.AsyncExitStack() as stack:
        url = sa.make_url(database.url)
        replicas = []
        for _ in range(REPLICAS):
            to_database = await stack.enter_async_context(pipe(f"{url.host}:{url.port}"))
            port = int(to_database.address.rpartition(":")[2])
            through = url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
            replica = Replica(through, folder, bug, clock_offset_s, **all_settings)
            replica.database_pipe = to_database
            replica.grpc_pipe = await stack.enter_async_context(pipe(replica.address))
            replica.http_pipe = await stack.enter_async_context(pipe(replica.http_address))
            replica.start(ready=False)
            stack.push_async_callback(asyncio.to_thread, replica.kill)
            replicas.append(replica)
        for replica in replicas:
            await asyncio.to_thread(replica.wait_until_ready)
        fleet.replicas = replicas
        yield fleet


def _settings(webhook_port: int, quotas: Mapping[str, int]) -> dict[str, str]:
    limits = {owner: {"active": quota, "creates": 1_000_000} for owner, quota in quotas.items()}
    return {
        "principal_limits": json.dumps(limits),
        "lease_min_seconds": "1",
        "stream_interval_seconds": "0.05",
        "keep_alive_seconds": "2",
        "drain_seconds": "5",
        "log_level": "warning",
        "webhook_keys": new_key(),
        "webhook_allow_http": "true",
        "webhook_allowed_networks": "127.0.0.1/32",
        "webhook_allowed_ports": str(webhook_port),
        "webhook_schedule_seconds": ",".join(["0", *["0.2"] * 60]),
        "webhook_timeout_seconds": str(WEBHOOK_TIMEOUT_S),
        "webhook_concurrency_per_host": "64",
    }
