"""A running service: one `milepost serve` process, its ports and its log.

with Service(f"sqlite:///{folder / 'milepost.db'}", folder) as service:
    alice = service.client("alice")
    operation = alice.create(function="video.transcode")
    with refused(StatusCode.FAILED_PRECONDITION) as refusal:
        alice.call("CompleteOperation", operation_id=operation.id)
"""

import http.client
import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import grpc
from sqlalchemy.engine import Engine

from milepost.config import Settings
from milepost.domain.api_key import issue_key
from milepost.domain.operation import Role
from milepost.storage.api_keys import KeyRing
from milepost.storage.engine import open_engine
from tests.canaries import CANARIES
from tests.e2e import fork_server
from tests.e2e.client import Client
from tests.machine import environment, free_ports
from tests.waiting import eventually

START_SECONDS = 30.0
STOP_SECONDS = 120.0
LOG_SECONDS = 5.0
PROMPT: Final = str(Settings.model_fields["database_timeout_seconds"].default)
"""The `database_timeout_seconds` of tests that take the database away."""
PATIENT: Final = "4.5"
"""That of all others: a busy machine holds up the database, too."""
MEASURED_EVERY_S = "0.1"
"""Interval of a service's counts in tests that wait for them."""
RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)
"""Options of a channel that reconnects soon and shares no connection with others."""
_LABEL = re.compile(r'(\w+)="([^"]*)"')
LIFTED: Final = dict.fromkeys(
    (
        "active_operations_max",
        "creates_per_minute",
        "lists_per_minute",
        "reads_per_minute",
        "changes_per_minute",
        "worker_writes_per_minute",
        "auth_failures_per_minute",
    ),
    "1000000",
)
"""Limits that no test reaches by accident; tests about limits set their own."""


class Service:
    """A service on free ports of the loopback that can be killed, and restarted on its data.

    Args:
        database_url: address of its database.
        folder: the folder of its log.
        limited: use the default limits, which are otherwise lifted.
        forked: save the import of its modules, see `tests.e2e.fork_server`; not for tests of what
            happens before that, of what it inherits, or of its memory.
        settings: settings by their names in `milepost.config.Settings`.
    """

    def __init__(
        self,
        database_url: str,
        folder: Path,
        *,
        limited: bool = False,
        forked: bool = True,
        **settings: str,
    ) -> None:
        self._limited = limited
        self._forked = forked
        grpc_port, http_port = free_ports(2)
        self.database_url = database_url
        self.address = f"127.0.0.1:{grpc_port}"
        self.http_address = f"127.0.0.1:{http_port}"
        self.url = f"http://{self.http_address}"
        self.process: subprocess.Popen[bytes] | fork_server.ForkedProcess | None = None
        self.command: Sequence[str] = (*fork_server.PROGRAM, "serve")
        self._settings = settings
        self._log = folder / f"service-{grpc_port}.log"
        CANARIES.watch(self._log)
        for name, value in {"database_url": database_url, **settings}.items():
            if "SecretStr" in str(Settings.model_fields[name].annotation):
                CANARIES.guard_setting(name, value)

    def __enter__(self) -> Self:
        """Start, and wait until it is ready."""
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop in order, unless the process was killed."""
        self.stop()

    def start(self, *, ready: bool = True) -> None:
        """Start the process and, by default, wait until it is ready for calls."""
        settings = {
            "database_url": self.database_url,
            "listen": self.address,
            "http_listen": self.http_address,
            "log_format": "json",
            "database_timeout_seconds": PATIENT,
            **({} if self._limited else LIFTED),
            **self._settings,
        }
        with self._log.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            self.process = fork_server.start(
                self.command,
                environment(**settings),
                stdin=nothing,
                stdout=log,
                stderr=log,
                forked=self._forked,
            )
        if ready:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until the service accepts calls; end the process if it does not."""
        try:
            eventually(self.is_ready, within=START_SECONDS, what="ready")
        except BaseException:
            self.kill()
            raise

    def is_ready(self) -> bool:
        """Return True if the service accepts calls; fail if its process has ended."""
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            return self.probe("/readyz")[0] == http.HTTPStatus.OK
        except OSError:
            return False

    def problem(self) -> str | None:
        """Return the reason why the service is not ready, or None."""
        page: dict[str, Any] = json.loads(self.probe("/readyz")[1])
        return page.get("reason")

    def probe(self, path: str) -> tuple[int, str]:
        """Return the status and the body of one page of the HTTP port."""
        connection = http.client.HTTPConnection(self.http_address, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of one metric that have these labels."""
        samples = re.findall(
            rf"^{name}(?:{{(.*)}})? (\S+)$", self.probe("/metrics")[1], re.MULTILINE
        )
        return sum(
            float(value)
            for found, value in samples
            if labels.items() <= dict(_LABEL.findall(found)).items()
        )

    def log(self) -> str:
        """Return the log so far."""
        return self._log.read_text(encoding="utf-8")

    def log_lines(self, **facts: object) -> list[Mapping[str, Any]]:
        """Return the log lines so far that have all of these facts."""
        # gRPC writes lines of its own. Lines without the words of a fact need not be read.
        words = [json.dumps(fact, ensure_ascii=False) for fact in facts.values()]
        written = (
            line
            for line in self.log().splitlines()
            if line.startswith("{") and all(word in line for word in words)
        )
        lines = (json.loads(line) for line in written)
        return [line for line in lines if facts.items() <= line.items()]

    def logged(self, **facts: object) -> Mapping[str, Any]:
        """Wait for the only log line that has all of these facts, and return it."""
        lines: list[Mapping[str, Any]] = eventually(
            lambda: self.log_lines(**facts), within=LOG_SECONDS, what=f"logged: {facts}"
        )
        (line,) = lines
        return line

    def api_key(
        self, subject: str, roles: Iterable[str] = ("CALLER",), functions: Iterable[str] = ()
    ) -> str:
        """Create an API key."""
        key, stored = issue_key(
            subject=subject, roles=[Role(role) for role in roles], functions=functions
        )
        KeyRing(self.engine).add(stored)
        CANARIES.guard("API key", key.split("_")[2])
        return key

    @cached_property
    def engine(self) -> Engine:
        """The engine of the service's database, which keeps no connection open."""
        return open_engine(self.database_url)

    @cached_property
    def channel(self) -> grpc.Channel:
        """The channel that all clients of the service share."""
        return grpc.insecure_channel(self.address, options=RECONNECT)

    def aio_channel(self) -> grpc.aio.Channel:
        """Return a new channel of the running event loop, which the test closes."""
        return grpc.aio.insecure_channel(self.address, options=RECONNECT)

    def client(
        self, subject: str, roles: Iterable[str] = ("CALLER",), functions: Iterable[str] = ()
    ) -> Client:
        """Return a client with a subject made unique, because the tests share the service."""
        subject = f"{subject}-{uuid.uuid4().hex}"
        key = self.api_key(subject, roles, functions)
        return Client(self.channel, subject, frozenset(roles), key)

    def worker(self) -> Client:
        """Return a worker for all functions."""
        return self.client("wally", roles=("WORKER",), functions=("*",))

    def stop(self) -> None:
        """Stop the process and assert that it ended well; do nothing if it was killed."""
        if self.process is None:
            return
        with suppress(OSError):  # one that is not ready yet, or stopping already, has no page
            CANARIES.saw("a page of metrics", self.probe("/metrics")[1])
        self.process.terminate()
        code = self.end()
        assert code == 0, f"exit code {code} after SIGTERM:\n{self.log()}"

    def end(self) -> int:
        """Wait for the process to end and return its exit code."""
        assert self.process is not None
        process, self.process = self.process, None
        try:
            return process.wait(STOP_SECONDS)
        finally:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """Kill the process without a chance to clean up."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.end()


@contextmanager
def started(services: list[Service]) -> Iterator[list[Service]]:
    """Wait until the services are ready, and stop them after the block."""
    with ExitStack() as stack:
        for service in services:
            service.start(ready=False)
            stack.callback(service.stop)
        for service in services:
            service.wait_until_ready()
        yield services
