"""The service that the tests of the client talk to: a real one on loopback that follows a script.

It answers every call, whatever it is, with the next item of its script, and keeps what it was
asked. What it says is exactly what was scripted, which no complete service could be brought to.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf import descriptor_pool, duration_pb2, message_factory, timestamp_pb2
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus

from milepost_client import Milepost
from milepost_client.gen.milepost.v1 import operation_pb2 as pb
from milepost_client.gen.milepost.v1 import operation_service_pb2, worker_service_pb2

API_KEY = "mp_test_0123456789abcdef"
ID = "op_0123456789abcdef01234567"


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error, with the details that the service sends along."""

    code: grpc.StatusCode
    reason: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    retry_after: timedelta | None = None
    domain: str = "milepost"

    def details(self) -> bytes:
        """Return the packed google.rpc.Status."""
        details: list[Message] = []
        if self.reason:
            details.append(
                ErrorInfo(domain=self.domain, reason=self.reason, metadata=self.facts),
            )
        if self.violations:
            fields = [
                BadRequest.FieldViolation(field=name, description=problem)
                for name, problem in self.violations.items()
            ]
            details.append(BadRequest(field_violations=fields))
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromTimedelta(self.retry_after)
            details.append(RetryInfo(retry_delay=delay))
        packed = [Packed() for _ in details]
        for target, detail in zip(packed, details, strict=True):
            target.Pack(detail)
        return RpcStatus(
            code=self.code.value[0], message="as scripted", details=packed
        ).SerializeToString()


UNDECODABLE = b"\xff"
"""An answer that is no message."""


class Never:
    """An answer that does not come."""


@dataclass(frozen=True)
class Streamed:
    """The answers of a stream, and how it ends."""

    items: tuple[bytes | Message, ...] = ()
    then: "Refusal | Never | None" = None


@dataclass(frozen=True)
class Asked:
    """One call as it arrived."""

    method: str
    request: Any
    metadata: dict[str, str]
    left: float
    """Seconds until the deadline of the call."""
    time: float
    """When it arrived, by the clock of the loop."""


class ScriptedService(grpc.GenericRpcHandler):
    """Answers each call with the next item of its script."""

    def __init__(self, *script: bytes | Message | Refusal | Never | Streamed) -> None:
        """Take the answers in their order."""
        self.script = list(script)
        self.asked: list[Asked] = []
        self.address = ""

    def service(self, details):
        """Serve any method that the protos know."""
        name = details.method.removeprefix("/").replace("/", ".")
        method = descriptor_pool.Default().FindMethodByName(name)
        metadata = dict(details.invocation_metadata)

        async def answer(request, context):
            time = asyncio.get_running_loop().time()
            left = context.time_remaining()
            self.asked.append(Asked(method.name, request, metadata, left, time))
            return await self._follow(context)

        make = grpc.unary_unary_rpc_method_handler
        if method.server_streaming:
            make = grpc.unary_stream_rpc_method_handler
        return make(
            answer,
            request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
            response_serializer=_serialized,
        )

    async def _follow(self, context):
        return await self._play(
            self.script.pop(0) if self.script else Refusal(grpc.StatusCode.UNKNOWN), context
        )

    async def _play(self, item, context):
        match item:
            case Streamed():
                for answer in item.items:
                    await context.write(answer)
                return item.then and await self._play(item.then, context)
            case Never():
                return await asyncio.Event().wait()
            case Refusal() as refusal:
                status = (("grpc-status-details-bin", refusal.details()),)
                return await context.abort(refusal.code, "as scripted", trailing_metadata=status)
            case answer:
                return answer

    @property
    def methods(self) -> list[str]:
        """The names of the methods called, in their order."""
        return [asked.method for asked in self.asked]

    @property
    def requests(self) -> list[Any]:
        """The requests, in their order."""
        return [asked.request for asked in self.asked]


def _serialized(answer: Message | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


@asynccontextmanager
async def serving(
    *script: bytes | Message | Refusal | Never | Streamed, address: str = "127.0.0.1:0"
) -> AsyncGenerator[ScriptedService, None]:
    """Run a service that follows the script."""
    service = ScriptedService(*script)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([service])
    service.address = f"127.0.0.1:{server.add_insecure_port(address)}"
    await server.start()
    try:
        yield service
    finally:
        await server.stop(None)


@asynccontextmanager
async def talking(
    *script: bytes | Message | Refusal | Never | Streamed, deadline: float = 10.0
) -> AsyncGenerator[tuple[Milepost, ScriptedService], None]:
    """Run a service that follows the script, and a client of it."""
    async with (
        serving(*script) as service,
        Milepost(service.address, api_key=API_KEY, deadline=deadline) as milepost,
    ):
        yield milepost, service


def operation(status: str = "PENDING", **fields: Any) -> pb.Operation:
    """Return an operation as the service tells it; the next look is due in 10 ms."""
    known: dict[str, Any] = {
        "id": ID,
        "function": "video.transcode",
        "owner": "alice",
        "status": f"OPERATION_STATUS_{status}",
        "create_time": timestamp_pb2.Timestamp(seconds=1_000_000),
        "expire_time": timestamp_pb2.Timestamp(seconds=1_086_400),
        "ttl": duration_pb2.Duration(seconds=86_400),
        "retry_after": duration_pb2.Duration(nanos=10_000_000),
        "revision": 1,
        "max_attempts": 3,
    }
    return pb.Operation(**(known | fields))


def got(status: str = "PENDING", **fields: Any) -> operation_service_pb2.GetOperationResponse:
    """Return the answer to a read."""
    return operation_service_pb2.GetOperationResponse(operation=operation(status, **fields))


def awaited(status: str = "PENDING", **fields: Any) -> operation_service_pb2.WaitOperationResponse:
    """Return the answer to a wait."""
    return operation_service_pb2.WaitOperationResponse(operation=operation(status, **fields))


def changed(*revisions: int, then: Refusal | Never | None = None, **fields: Any) -> Streamed:
    """Return a watch that tells of these revisions, then that it lives, and then ends."""
    pb2 = operation_service_pb2
    items = [
        pb2.WatchOperationResponse(operation=operation("PROCESSING", revision=revision, **fields))
        for revision in revisions
    ]
    alive = pb2.WatchOperationResponse(keep_alive=pb2.KeepAlive())
    return Streamed((*items, alive), then)


def page(*ids: str, then: str = "") -> operation_service_pb2.ListOperationsResponse:
    """Return one page of a list; `then` leads to the next one."""
    operations = [operation(id=name) for name in ids]
    return operation_service_pb2.ListOperationsResponse(operations=operations, next_page_token=then)


def started(**fields: Any) -> worker_service_pb2.StartOperationResponse:
    """Return the answer to a start: the first attempt."""
    stands = operation("PROCESSING", **({"attempt": 1} | fields))
    return worker_service_pb2.StartOperationResponse(operation=stands)


def illegal(transition: str, status: str) -> Refusal:
    """Return the refusal of a transition that the status does not allow."""
    facts = {"transition": transition, "status": status, "allowed": "PENDING,PROCESSING"}
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION", facts)


def unavailable(reason: str = "STORE_UNAVAILABLE", *, milliseconds: int = 5) -> Refusal:
    """Return the refusal of a service that is away for a moment."""
    return Refusal(
        grpc.StatusCode.UNAVAILABLE, reason, retry_after=timedelta(milliseconds=milliseconds)
    )
