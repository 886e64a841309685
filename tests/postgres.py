"""A PostgreSQL server for the tests: a throwaway one, or one that exists already.

The throwaway server runs from the binaries of a wheel (tests/postgres_binaries.py), so nothing has
to be installed. PostgreSQL refuses to run as root: then it runs as an unprivileged account, in a
folder of that account.

    with PostgresCluster(durable=False) as cluster:
        cluster.create_database("one")
        engine = create_engine(cluster.url("one"))
"""

import atexit
import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import psycopg
from psycopg import sql
from sqlalchemy import make_url

from tests.machine import free_port
from tests.postgres_account import Account
from tests.postgres_binaries import (
    PostgresError,
    copy_binaries,
    find_binaries,
    memory_root,
    open_to_all,
    temporary_root,
)

URL_VARIABLE = "MILEPOST_TEST_POSTGRES_URL"

_SUPERUSER = "postgres"
_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.01
_START_ATTEMPTS = 5


class PostgresServer:
    """A reachable server on which databases are created and dropped.

    Args:
        url: address of a database whose user may create others.
    """

    def __init__(self, url: str) -> None:
        self._admin = make_url(url)

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of `database`."""
        return self._admin.set(drivername="postgresql+psycopg", database=database).render_as_string(
            hide_password=False
        )

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, empty or as a copy of `template`, which must be unused."""
        # Copying files costs half of what writing all of their pages to the log does.
        source = sql.Identifier(template or "template0")
        self._execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), source
            )
        )

    def drop_database(self, name: str) -> None:
        """Drop the database `name` and end the sessions on it."""
        self._execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )

    def _execute(self, statement: sql.Composed) -> None:
        with self._connect() as connection:
            connection.execute(statement)

    def _connect(self) -> psycopg.Connection:
        address = self._admin.set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(address, autocommit=True, connect_timeout=10)


class PostgresCluster(PostgresServer):
    """A PostgreSQL cluster of its own, on a free port of the loopback and on a Unix socket.

    It can be stopped or killed and started again with the same data and port; `remove` ends it.

    Args:
        durable: whether a commit reaches the disk before it is acknowledged; False is for tests
            that kill nothing.
        in_memory: whether its files stand in memory, where that has room: a busy disk does not
            delay the tests, and what they kill is a process, not the machine.
        disk: a folder to hold its files instead.
        binaries: the folder of its programs; those of the newest version in the wheel when it is
            not given.
        settings: more server settings, by name.
    """

    def __init__(
        self,
        *,
        durable: bool = True,
        in_memory: bool = False,
        disk: Path | None = None,
        binaries: Path | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.durable = durable
        self._in_memory = in_memory
        self._disk = disk
        self._memory: Path | None = None
        self.port = 0
        self._binaries = binaries
        self._settings = settings or {}
        self._account = Account.unprivileged()
        self._folder: Path | None = None
        self._bin = Path()
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__(f"postgresql://{_SUPERUSER}@127.0.0.1/postgres")

    def __enter__(self) -> Self:
        """Start."""
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, and leave nothing behind."""
        self.remove()

    @property
    def folder(self) -> Path:
        """The folder of the data, the socket and the log; the cluster must have been started."""
        if self._folder is None:
            raise PostgresError("this PostgreSQL cluster was never started, or it is removed")
        return self._folder

    @property
    def pid(self) -> int:
        """The process id of the postmaster; the cluster must run."""
        if self._process is None:
            raise PostgresError("this PostgreSQL cluster does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        """True from the start of the server until it is stopped or killed."""
        return self._process is not None and self._process.poll() is None

    @property
    def socket_directory(self) -> Path:
        """The folder of the Unix socket, for `host=`."""
        return self.folder / "s"

    @property
    def bin_directory(self) -> Path:
        """The folder of `pgbench`, `pg_dump` and the others, of a started cluster."""
        return self._bin

    def start(self) -> None:
        """Start the server, which must not run, and wait until it accepts connections."""
        if self.running:
            raise PostgresError("this PostgreSQL cluster runs already")
        if self._folder is None:
            self._create()
        for attempt in range(1, _START_ATTEMPTS + 1):
            port = self.port or free_port()
            self._launch(port)
            if self._wait_until_ready():
                self.port = port
                return
            log, crashed = self.log(), self._crashed_before_it_began()
            self._end(signal.SIGQUIT)
            # Another process may have taken the free port in between.
            lost_the_port = not self.port and "Address already in use" in log
            if attempt == _START_ATTEMPTS or not (lost_the_port or crashed):
                raise PostgresError(f"PostgreSQL did not start:\n{log}")

    def _crashed_before_it_began(self) -> bool:
        # gRPC has handlers of a fork, which rarely crash the child while calls run.
        return self._process is not None and self._process.poll() == -signal.SIGSEGV

    def stop(self) -> None:
        """Shut the server down in order and end its sessions; the data stays for a `start`."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill the server and all its processes as in a crash."""
        if self._process is None:
            return
        postmaster = psutil.Process(self._process.pid)
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            postmaster.suspend()  # so that it starts no child while they are listed
            children = postmaster.children(recursive=True)
            postmaster.kill()
        self._process.wait(_STOP_SECONDS)
        self._process = None
        # The children see that the postmaster is gone and end by themselves, but not at once.
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        deadline = time.monotonic() + _STOP_SECONDS
        while any(_alive(child) for child in children):
            if time.monotonic() > deadline:
                raise PostgresError(f"processes of PostgreSQL survive SIGKILL: {children}")
            time.sleep(_POLL_SECONDS)

    @contextlib.contextmanager
    def frozen(self, *, whole: bool = True) -> Iterator[None]:
        """Freeze the sessions of the server, and new connections too if `whole`."""
        postmaster = psutil.Process(self.pid)
        postmaster.suspend()  # so that it starts no child while they are listed
        children = postmaster.children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                child.suspend()
        if not whole:
            postmaster.resume()
        try:
            yield
        finally:
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.resume()
            postmaster.resume()

    def remove(self) -> None:
        """Stop all processes and remove the folder."""
        # An immediate shutdown writes no checkpoint, but releases the shared memory.
        self._end(signal.SIGQUIT)
        if self._memory is not None:
            shutil.rmtree(self._memory)
            self._memory = None
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None
            atexit.unregister(self.remove)

    def log(self, lines: int = 30) -> str:
        """Return the last lines of the server log."""
        text = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _create(self) -> None:
        """Make the folder with an empty cluster and, where needed, a copy of the binaries."""
        # Short, because the path of a Unix socket may have only about 100 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="mp-pg-", dir=temporary_root()))
        self._folder.chmod(0o711)
        atexit.register(self.remove)
        try:
            self._bin = self._binaries or find_binaries()
            if self._account.uid is not None and not open_to_all(self._bin / "postgres"):
                self._bin = copy_binaries(self._bin, self._folder / "pg")
            root = self._disk or (memory_root() if self._in_memory else None)
            if root is None:
                (self._folder / "d").mkdir()
            else:
                self._memory = Path(tempfile.mkdtemp(prefix="mp-pg-", dir=root))
                (self._folder / "d").symlink_to(self._memory)
            (self._folder / "s").mkdir()
            for name in ("d", "s"):
                self._account.own(self._folder / name)
            self._initialise()
        except BaseException:
            self.remove()
            raise

    def _initialise(self) -> None:
        process = self._popen(
            [
                self._bin / "initdb",
                f"--pgdata={self.folder / 'd'}",
                f"--username={_SUPERUSER}",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-instructions",
                "--no-sync",
            ]
        )
        try:
            status = process.wait(_START_SECONDS)
        finally:
            process.kill()
        if status:
            raise PostgresError(f"initdb failed:\n{self.log()}")

    def _launch(self, port: int) -> None:
        """Start the postmaster itself, not pg_ctl, so that it is our child and no other."""
        on = "on" if self.durable else "off"
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(self.socket_directory),
            "max_connections": "100",
            "shared_buffers": "32MB",
            # Files in the data directory are removed with it; /dev/shm may be tiny in a container.
            "dynamic_shared_memory_type": "mmap",
            "fsync": "on",  # without these two the service refuses the server
            "full_page_writes": "on",
            "synchronous_commit": on,
        } | self._settings
        command: list[str | Path] = [self._bin / "postgres", "-D", self.folder / "d"]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self._process = self._popen(command)
        self._admin = self._admin.set(port=port)

    def _popen(self, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        try:
            return self._account.popen(command, self.folder / "log", self.folder / "d")
        except OSError as error:
            raise PostgresError(
                f"{command[0]} cannot be run as uid {self._account.uid}: {error}"
            ) from error

    def _wait_until_ready(self) -> bool:
        """Return True once the server answers, or False if it ended or takes too long."""
        deadline = time.monotonic() + _START_SECONDS
        while self.running and time.monotonic() < deadline:
            # Ours, and not another server on the same port: the socket is in our folder.
            if (self.socket_directory / f".s.PGSQL.{self._admin.port}").exists():
                with contextlib.suppress(psycopg.OperationalError), self._connect():
                    return True
            time.sleep(_POLL_SECONDS)
        return False

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(how)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None


def _alive(process: psutil.Process) -> bool:
    """Return True if the process runs; a zombie, which PID 1 has yet to collect, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
