"""Calls: each with a credential, a deadline and a request_id, tried again while that is safe."""

import asyncio
import uuid
from functools import cache
from typing import Final, TypeAlias, TypeVar

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from milepost_client.credential import Credential
from milepost_client.disruption import is_disruption
from milepost_client.errors import MilepostError, Unavailable
from milepost_client.gen.milepost.v1 import operation_service_pb2 as pb
from milepost_client.gen.milepost.v1 import webhook_service_pb2
from milepost_client.gen.milepost.v1 import worker_service_pb2 as worker_pb
from milepost_client.gen.milepost.v1.operation_service_pb2_grpc import OperationServiceStub
from milepost_client.gen.milepost.v1.webhook_service_pb2_grpc import WebhookServiceStub
from milepost_client.gen.milepost.v1.worker_service_pb2_grpc import WorkerServiceStub
from milepost_client.pace import Backoff
from milepost_client.refusal import decoded, rebuild
from milepost_client.trace_context import trace_metadata

READS: Final = (
    pb.GetOperationRequest,
    pb.ListEventsRequest,
    pb.ListOperationsRequest,
    pb.WaitOperationRequest,
    webhook_service_pb2.GetSigningSecretRequest,
    webhook_service_pb2.ListDeliveriesRequest,
)
"""The requests that change nothing."""
CLAIMS: Final = (worker_pb.ClaimOperationsRequest,)
"""The requests for work: what an unanswered one has claimed goes back to the service."""

ProgressCall: TypeAlias = grpc.aio.StreamStreamCall[
    worker_pb.StreamProgressRequest, worker_pb.StreamProgressResponse
]
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response")


class Calls:
    """The services behind one channel, and the calls to them."""

    def __init__(
        self, channel: grpc.aio.Channel, *, credential: Credential, deadline: float
    ) -> None:
        self.operations = OperationServiceStub(channel)
        self.webhooks = WebhookServiceStub(channel)
        self.workers = WorkerServiceStub(channel)
        self.credential = credential
        self.deadline = deadline

    async def send(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        waiting: float = 0.0,
    ) -> Response:
        """Return the answer to the request.

        A request that takes a request_id and has none gets one, the same for every try. While
        the service is unavailable, or calls are broken on their way to it, the request is sent
        again: after the pause that the service asks for, and a growing one. The deadline bounds
        all tries together.

        Args:
            method: The method to call.
            request: The request to send.
            waiting: The seconds that the service is asked to wait, in addition to the deadline.

        Raises:
            MilepostError: The service refused, or did not answer in time, or its answer cannot be
                decoded.
        """
        _identify(request)
        clock = asyncio.get_running_loop().time
        end = clock() + self.deadline + waiting
        backoff = Backoff()
        while True:
            try:
                metadata = await self.metadata(end - clock())
                answer = await method(
                    request, timeout=end - clock(), metadata=metadata, wait_for_ready=False
                )
                return decoded(answer)
            except (grpc.aio.AioRpcError, Unavailable) as failure:
                error = rebuild(failure)
                pause = backoff.pause_s(error)
                if not (_is_passing(error) and _is_repeatable(request)) or clock() + pause >= end:
                    raise error from error.__cause__
            await asyncio.sleep(pause)

    async def metadata(self, timeout: float | None = None) -> tuple[tuple[str, str], ...]:
        """Return the metadata of one try: the credential, and the trace of the caller.

        Args:
            timeout: The seconds that a token source has for its answer; by default the deadline.

        Raises:
            MilepostError: The token source has no token.
        """
        timeout = self.deadline if timeout is None else timeout
        return (*await self.credential.metadata(timeout), *trace_metadata())

    async def stream_progress(self) -> ProgressCall:
        """Open a progress stream, without a deadline. It belongs to the trace of no caller.

        Raises:
            MilepostError: The token source has no token.
        """
        return self.workers.StreamProgress(metadata=await self.credential.metadata(self.deadline))


def _identify(request: Message) -> None:
    """Give the request a request_id, unless it has no such field, or has one already."""
    if _takes_request_id(request.DESCRIPTOR) and not request.HasField("request_id"):
        request.request_id = str(uuid.uuid4())  # type: ignore[attr-defined]


def _is_passing(error: MilepostError) -> bool:
    """Return True if another try may find the service."""
    return error.code is grpc.StatusCode.UNAVAILABLE or is_disruption(error)


def _is_repeatable(request: Message) -> bool:
    """Return True if sending the request twice does no harm."""
    return isinstance(request, (*READS, *CLAIMS)) or _takes_request_id(request.DESCRIPTOR)


@cache
def _takes_request_id(request: Descriptor) -> bool:
    """Return True for requests that the service recognises when they come again."""
    return "request_id" in request.fields_by_name
