"""A running service (one `milepost serve` process, its ports and its log), and calls to it.

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
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from sqlalchemy.engine import Engine

from milepost.config import Settings
from milepost.domain.api_key import issue_key
from milepost.domain.operation import Role
from milepost.gen.milepost.v1 import (
    admin_service_pb2,
    operation_service_pb2,
    webhook_service_pb2,
    worker_service_pb2,
)
from milepost.gen.milepost.v1 import operation_pb2 as pb
from milepost.storage.credentials import KeyRing
from milepost.storage.engine import open_engine
from tests.canaries import CANARIES

START_SECONDS = 30.0
STOP_SECONDS = 30.0
LOG_SECONDS = 5.0
POLL_SECONDS = 0.01
CALL_SECONDS = 20.0
RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)
"""A service that was away is called again soon, and at once over another channel."""
FUNCTION = "video.transcode"

BROKEN = pb.OperationError(code="BROKEN", message="it broke")

_LABEL = re.compile(r'(\w+)="([^"]*)"')
Metadata = tuple[tuple[str, str | bytes], ...]


def environment(**settings: str) -> dict[str, str]:
    """The environment of this process, with these settings of Milepost and no others."""
    outside = {k: v for k, v in os.environ.items() if not k.startswith("MILEPOST_")}
    return outside | {f"MILEPOST_{name.upper()}": value for name, value in settings.items()}


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def eventually(condition: Callable[[], Any], *, within: float, what: str) -> Any:
    """What `condition` returns as soon as that is true; a failure if it is not in time."""
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(POLL_SECONDS)


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
"""Limits that no test reaches by accident; those about limits say which they mean."""


class Service:
    """A service on free ports of the loopback. It can be killed, and started again on its data.

    Args:
        database_url: where its operations live.
        folder: where its log goes.
        limited: with the limits of the product, which are otherwise lifted.
        settings: by the names of `milepost.config.Settings`.
    """

    def __init__(
        self, database_url: str, folder: Path, *, limited: bool = False, **settings: str
    ) -> None:
        self._limited = limited
        grpc_port, http_port = free_ports(2)
        self.database_url = database_url
        self.address = f"127.0.0.1:{grpc_port}"
        self.http_address = f"127.0.0.1:{http_port}"
        self.url = f"http://{self.http_address}"
        self.process: subprocess.Popen[bytes] | None = None
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
        """Stop in order, unless it was killed."""
        self.stop()

    def start(self, *, ready: bool = True) -> None:
        """The process runs and, unless told otherwise, is ready for calls."""
        settings = {
            "database_url": self.database_url,
            "listen": self.address,
            "http_listen": self.http_address,
            "log_format": "json",
            **({} if self._limited else LIFTED),
            **self._settings,
        }
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "milepost", "serve"],
                env=environment(**settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if ready:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """It takes calls; its process is ended if it does not come to that."""
        try:
            eventually(self.is_ready, within=START_SECONDS, what="ready")
        except BaseException:
            self.kill()
            raise

    def is_ready(self) -> bool:
        """Whether calls should be sent to it; a failure if its process has ended."""
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            return self.probe("/readyz")[0] == http.HTTPStatus.OK
        except OSError:
            return False

    def probe(self, path: str) -> tuple[int, str]:
        """The status and the body of one page of the HTTP port."""
        connection = http.client.HTTPConnection(self.http_address, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of one metric that have these labels."""
        samples = re.findall(
            rf"^{name}(?:{{(.*)}})? (\S+)$", self.probe("/metrics")[1], re.MULTILINE
        )
        return sum(
            float(value)
            for found, value in samples
            if labels.items() <= dict(_LABEL.findall(found)).items()
        )

    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8")

    def log_lines(self, **facts: object) -> list[Mapping[str, Any]]:
        """The log lines so far that say all of these facts."""
        # gRPC writes lines of its own.
        written = (line for line in self.log().splitlines() if line.startswith("{"))
        lines = (json.loads(line) for line in written)
        return [line for line in lines if facts.items() <= line.items()]

    def logged(self, **facts: object) -> Mapping[str, Any]:
        """The one log line that says all of these facts; it may be written a little later."""
        lines: list[Mapping[str, Any]] = eventually(
            lambda: self.log_lines(**facts), within=LOG_SECONDS, what=f"logged: {facts}"
        )
        (line,) = lines
        return line

    def api_key(
        self, subject: str, roles: Iterable[str] = ("CALLER",), functions: Iterable[str] = ()
    ) -> str:
        """A new API key."""
        key, stored = issue_key(
            subject=subject, roles=[Role(role) for role in roles], functions=functions
        )
        KeyRing(self.engine).add(stored)
        CANARIES.guard("API key", key.split("_")[2])
        return key

    @cached_property
    def engine(self) -> Engine:
        """The way to its database, beside it; it holds no connection."""
        return open_engine(self.database_url)

    @cached_property
    def channel(self) -> grpc.Channel:
        """The connection that its clients share."""
        return grpc.insecure_channel(self.address, options=RECONNECT)

    def aio_channel(self) -> grpc.aio.Channel:
        """A connection of the running event loop, to be closed."""
        return grpc.aio.insecure_channel(self.address, options=RECONNECT)

    def client(
        self, subject: str, roles: Iterable[str] = ("CALLER",), functions: Iterable[str] = ()
    ) -> "Client":
        """Who calls as `subject`, which is made unique: the tests share the service."""
        subject = f"{subject}-{uuid.uuid4().hex}"
        key = self.api_key(subject, roles, functions)
        return Client(self.channel, subject, frozenset(roles), key)

    def worker(self) -> "Client":
        """Who may do all work."""
        return self.client("wally", roles=("WORKER",), functions=("*",))

    def stop(self) -> None:
        """It has finished what ran and has ended well. Nothing happens if it was killed."""
        if self.process is None:
            return
        with suppress(OSError):  # one that is not ready yet, or stopping already, has no page
            CANARIES.saw("a page of metrics", self.probe("/metrics")[1])
        self.process.terminate()
        code = self.end()
        assert code == 0, f"exit code {code} after SIGTERM:\n{self.log()}"

    def end(self) -> int:
        """The exit code of its process, which ends."""
        assert self.process is not None
        process, self.process = self.process, None
        try:
            return process.wait(STOP_SECONDS)
        finally:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """Its process is gone, without a chance to say good-bye."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.end()


@dataclass(frozen=True, slots=True)
class Rpc:
    """One RPC, as its proto describes it."""

    name: str
    """Service and method, such as `milepost.v1.OperationService/GetOperation`."""
    request: type[Message]
    response: type[Message]
    shape: str
    """`unary_unary`, `unary_stream`, `stream_unary` or `stream_stream`."""

    @property
    def takes_id(self) -> bool:
        """Whether its request names an operation, and not just as a filter."""
        field = self.request.DESCRIPTOR.fields_by_name.get("operation_id")
        return field is not None and not field.has_presence

    @property
    def method(self) -> str:
        """The name of the method alone."""
        return self.name.partition("/")[2]

    def about(self, operation_id: str, **fields: Any) -> Message:
        """A complete request about one operation."""
        known = self.request.DESCRIPTOR.fields_by_name
        if "errors" in known:
            fields = {"errors": [BROKEN], **fields}
        if "timeout" in known:  # of a wait: the answer comes at once
            fields = {"timeout": duration_pb2.Duration(), **fields}
        return self.request(operation_id=operation_id, **fields)

    def on(self, channel: Any) -> Any:
        """What calls it on `channel`, be it of grpc or of grpc.aio."""
        make = getattr(channel, self.shape)
        return make(f"/{self.name}", self.request.SerializeToString, self.response.FromString)

    def send(self, channel: grpc.Channel, request: Message, metadata: Metadata) -> Any:
        """The answer; for a stream the first one, or nothing if it is empty."""
        given = iter([request]) if self.shape.startswith("stream") else request
        answer = self.on(channel)(given, metadata=metadata, timeout=CALL_SECONDS)
        return next(answer, None) if self.shape.endswith("stream") else answer


def _shape(method: Any) -> str:
    sides = (method.client_streaming, method.server_streaming)
    return "_".join("stream" if streaming else "unary" for streaming in sides)


RPCS = tuple(
    Rpc(
        name=f"{service.full_name}/{method.name}",
        request=GetMessageClass(method.input_type),
        response=GetMessageClass(method.output_type),
        shape=_shape(method),
    )
    for file in (
        operation_service_pb2,
        worker_service_pb2,
        webhook_service_pb2,
        admin_service_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
"""Every RPC of Milepost's own protos."""
ABOUT_ONE = tuple(rpc for rpc in RPCS if rpc.takes_id and rpc.shape != "stream_stream")
"""Those that are about one operation, which their request names; each refusal ends the call."""
_BY_METHOD = {rpc.method: rpc for rpc in RPCS}


class Client:
    """Who calls with one API key."""

    def __init__(
        self, channel: grpc.Channel, subject: str, roles: frozenset[str], key: str
    ) -> None:
        self.channel = channel
        self.subject = subject
        self.roles = roles
        self.key = key
        self.metadata: Metadata = (("authorization", f"Bearer {key}"),)

    def send(self, rpc: Rpc, request: Message) -> Any:
        """The answer of an RPC, whichever it is."""
        return rpc.send(self.channel, request, self.metadata)

    def call(self, method: str, **fields: Any) -> Any:
        """The answer of the RPC with this name to a request with these fields."""
        rpc = _BY_METHOD[method]
        return self.send(rpc, rpc.request(**fields))

    def future(self, method: str, **fields: Any) -> Any:
        """The answer to come of a unary RPC: many can run at once."""
        rpc = _BY_METHOD[method]
        call = rpc.on(self.channel)
        return call.future(rpc.request(**fields), metadata=self.metadata, timeout=CALL_SECONDS)

    def ask(self, rpc: Rpc, operation_id: str) -> Any:
        """The answer to come of an RPC to a complete request, about one operation or none."""
        request = rpc.about(operation_id) if rpc.takes_id else rpc.request()
        if rpc.method == "CreateOperation":
            request = rpc.request(function=FUNCTION)
        if rpc.method == "ClaimOperations":
            request = rpc.request(functions=[FUNCTION])
        call = rpc.on(self.channel)
        begin = call.future if rpc.shape == "unary_unary" else call
        return begin(request, metadata=self.metadata, timeout=CALL_SECONDS)

    def begin(self, channel: grpc.aio.Channel, method: str, **fields: Any) -> Any:
        """The call of a unary RPC over a channel of grpc.aio, to be awaited or cancelled."""
        rpc = _BY_METHOD[method]
        request = rpc.request(**fields)
        return rpc.on(channel)(request, metadata=self.metadata, timeout=CALL_SECONDS)

    def watch(
        self,
        channel: Any,
        operation_id: str,
        after_revision: int = 0,
        *,
        seconds: float = CALL_SECONDS,
    ) -> Any:
        """A watch over a channel of grpc or grpc.aio, to be iterated over and cancelled."""
        rpc = _BY_METHOD["WatchOperation"]
        request = rpc.request(operation_id=operation_id, after_revision=after_revision)
        return rpc.on(channel)(request, metadata=self.metadata, timeout=seconds)

    def create(self, **fields: Any) -> pb.Operation:
        """A new operation."""
        operation: pb.Operation = self.call(
            "CreateOperation", **{"function": FUNCTION, **fields}
        ).operation
        return operation

    def get(self, operation_id: str) -> pb.Operation:
        """The operation as it stands."""
        operation: pb.Operation = self.call("GetOperation", operation_id=operation_id).operation
        return operation

    def move(self, method: str, operation_id: str, **fields: Any) -> pb.Operation:
        """The operation as the RPC with this name leaves it."""
        operation: pb.Operation = self.call(method, operation_id=operation_id, **fields).operation
        return operation

    def create_in(self, status: str, **fields: Any) -> pb.Operation:
        """A new operation that has come to `status`, started on its way to the end of it."""
        operation = self.create(**fields)
        if status != "PENDING":
            operation = self.move("StartOperation", operation.id)
        if status in LAST_MOVES:
            method, more = LAST_MOVES[status]
            operation = self.move(method, operation.id, **more)
        return operation


LAST_MOVES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "COMPLETED": ("CompleteOperation", {}),
    "FAILED": ("FailOperation", {"errors": [BROKEN]}),
    "CANCELLED": ("CancelOperation", {}),
}


class Refusal:
    """A call that was refused: everything that its caller is told."""

    error: Any
    """Of grpc or of grpc.aio."""

    @cached_property
    def code(self) -> grpc.StatusCode:
        """The code of gRPC."""
        code: grpc.StatusCode = self.error.code()
        return code

    @cached_property
    def message(self) -> str:
        """The sentence."""
        return self.error.details() or ""

    @cached_property
    def status(self) -> status_pb2.Status:
        """The status with its details."""
        status: status_pb2.Status | None = rpc_status.from_call(self.error)
        assert status is not None, f"without details: {self.code} {self.message}"
        assert (status.code, status.message) == (self.code.value[0], self.message)
        return status

    @property
    def trailers(self) -> list[tuple[str, str | bytes]]:
        """The trailing metadata."""
        return [(key, value) for key, value in self.error.trailing_metadata() or ()]

    def detail(self, kind: type[Any]) -> Any:
        """The one detail of this type."""
        (packed,) = (detail for detail in self.status.details if detail.Is(kind.DESCRIPTOR))
        found = kind()
        packed.Unpack(found)
        return found

    @property
    def reason(self) -> str:
        """What programs decide by."""
        info = self.detail(error_details_pb2.ErrorInfo)
        assert info.domain == "milepost"
        return str(info.reason)

    @property
    def facts(self) -> dict[str, str]:
        """Every dynamic part of the sentence."""
        return dict(self.detail(error_details_pb2.ErrorInfo).metadata)

    @property
    def retry_after(self) -> float:
        """After how many seconds to try again."""
        delay = self.detail(error_details_pb2.RetryInfo).retry_delay
        return float(delay.seconds + delay.nanos / 1e9)

    @property
    def violations(self) -> dict[str, str]:
        """What is wrong with each field."""
        bad = self.detail(error_details_pb2.BadRequest)
        return {violation.field: violation.description for violation in bad.field_violations}


@contextmanager
def refused(code: grpc.StatusCode | None, reason: str | None = None) -> Iterator[Refusal]:
    """The call inside is refused, with `code` and, where one is given, `reason`."""
    refusal = Refusal()
    try:
        yield refusal
    except grpc.RpcError as error:
        refusal.error = error
        CANARIES.saw_error(error)
        assert code in {None, refusal.code}, refusal.message
        assert reason in {None, refusal.reason}
    else:
        raise AssertionError(f"not refused with {code}")
