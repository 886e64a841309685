"""The ways of a call to a replica: gRPC and HTTP. Both say what became of the call."""

import json
from http import HTTPStatus
from typing import Any, Final, Protocol

import aiohttp
import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc import StatusCode
from grpc_status import rpc_status

from tests.e2e.http.protocol import path_of, url_of
from tests.e2e.rpcs import BY_METHOD, Rpc
from tests.e2e.service import RECONNECT

CALL_S: Final = 2.5
"""Deadline of a call: the service answers within 1 s if it can answer at all."""
UNKNOWN: Final = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.CANCELLED,
        StatusCode.UNKNOWN,
        StatusCode.INTERNAL,
    }
)
"""Codes of calls that may have happened."""
UNKNOWN_STATUSES: Final = frozenset({500, 502, 503, 504})


class RefusedCall(Exception):
    """The service says that the call has changed nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnknownOutcome(Exception):
    """The call may have happened or not."""


class Transport(Protocol):
    """A way to one replica."""

    name: str

    async def call(self, method: str, key: str, **fields: Any) -> Any:
        """Return the response of a method.

        Raises:
            RefusedCall: nothing happened.
            UnknownOutcome: it may have happened.
        """


class Grpc:
    """Calls over one channel."""

    name = "grpc"

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address, options=RECONNECT)

    async def call(self, method: str, key: str, **fields: Any) -> Any:
        """See `Transport.call`."""
        rpc = BY_METHOD[method]
        wait = getattr(fields.get("timeout"), "seconds", 0)
        try:
            return await rpc.on(self.channel)(
                rpc.request(**fields), metadata=metadata(key), timeout=CALL_S + wait
            )
        except grpc.aio.AioRpcError as error:
            raise outcome_of(error) from None

    async def close(self) -> None:
        """Close the channel."""
        await self.channel.close()


class Http:
    """Calls over HTTP and JSON."""

    name = "http"

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}"
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_S))

    async def call(self, method: str, key: str, **fields: Any) -> Any:
        """See `Transport.call`."""
        rpc = BY_METHOD[method]
        verb, place, body = url_of(rpc, rpc.request(**fields))
        headers = dict(metadata(key))
        try:
            async with self._session.request(
                verb, self._url + place, json=body, headers=headers
            ) as response:
                status, data = response.status, await response.read()
                replayed = "Idempotent-Replayed" in response.headers
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnknownOutcome(type(error).__name__) from None
        answer = _response(rpc, status, data)
        if replayed:
            answer.replayed = True
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


def metadata(key: str) -> tuple[tuple[str, str], ...]:
    """Return the credential of a call."""
    return (("authorization", f"Bearer {key}"),)


def outcome_of(error: grpc.aio.AioRpcError) -> Exception:
    """Return what an error of gRPC says about its call.

    The library has codes of its own for broken calls. INTERNAL, for example, is that of a write to
    a stream which the replica has just refused. Only the service gives a reason.
    """
    status = rpc_status.from_call(error)
    reason = f"{error.code().name} of the library"
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            reason = info.reason
    return (UnknownOutcome if error.code() in UNKNOWN else RefusedCall)(reason)


def _response(rpc: Rpc, status: int, data: bytes) -> Any:
    if status in UNKNOWN_STATUSES:
        raise UnknownOutcome(str(status))
    plain = json.loads(data)
    if status >= HTTPStatus.BAD_REQUEST:
        raise RefusedCall(plain.get("reason", str(status)))
    path = path_of(rpc)
    if path is not None and path.response_field:
        plain = {path.response_field: plain}
    response = rpc.response()
    json_format.ParseDict(plain, response)
    return response
