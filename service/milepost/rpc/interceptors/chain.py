"""The chain around every RPC: the same interceptors in one order for unary calls and streams.

Handlers are wrapped once, when they are registered, not at every call. A stream is run by the
innermost function, so that an interceptor sees each RPC, of whatever shape, as one awaitable.

A servicer is a plain class with the methods of its proto. Each takes the request and the `RpcCall`,
which carries the principal.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from milepost.api.convert import UNDECODABLE
from milepost.api.errors import status_of
from milepost.api.methods import method_of
from milepost.domain.errors import InvalidRequest, Overloaded
from milepost.rpc.call import RpcCall
from milepost.rpc.unread_calls import UnreadCalls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from grpc.aio import Server

    from milepost.access.method import Method
    from milepost.access.unknown_callers import UnknownCallers
    from milepost.rpc.call import Context

    Behaviour = Callable[[Any, RpcCall], Awaitable[Any]]
    CallNext = Callable[[RpcCall, Any, Context], Awaitable[Any]]


class Interceptor(Protocol):
    """Something that every call passes through."""

    async def intercept(
        self, call_next: CallNext, call: RpcCall, request: Any, context: Context
    ) -> Any:
        """Await `call_next(call, request, context)` and return the response.

        The request is a message or an iterator; the response is a message, or None for a stream.
        """


class InterceptedServer:
    """Stands in for the server while services are added, and wraps them in the interceptors."""

    def __init__(
        self,
        server: Server,
        interceptors: Iterable[Interceptor],
        unknown: UnknownCallers | None = None,
    ) -> None:
        """Wrap what is added in `interceptors`, outermost first; refuse `unknown` before them."""
        self._unknown = unknown
        self._interceptors = tuple(interceptors)
        self._unread = UnreadCalls()
        self._methods = _Methods()
        self.services: list[str] = []
        server.add_generic_rpc_handlers((self._methods,))

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Do nothing: the same handlers arrive below, by name."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Register the methods of one service, each inside all interceptors."""
        self.services.append(service)
        for name, handler in handlers.items():
            method = method_of(f"{service}/{name}")
            self._methods.handlers[f"/{method.name}"] = self._wrap(handler, method)

    def _wrap(
        self, handler: grpc.RpcMethodHandler[Any, Any], method: Method
    ) -> grpc.RpcMethodHandler[Any, Any]:
        shape = ("stream_" if handler.request_streaming else "unary_") + (
            "stream" if handler.response_streaming else "unary"
        )
        call_next = _innermost(_awaitable(getattr(handler, shape)))
        for interceptor in reversed(self._interceptors):
            call_next = functools.partial(interceptor.intercept, call_next)
        read = _pass_on if handler.request_streaming else self._unread.read
        streams = shape != "unary_unary"
        # For gRPC every request is a stream, so that it leaves the reading to the service.
        kind = "stream_stream" if handler.response_streaming else "stream_unary"
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        wrapped: grpc.RpcMethodHandler[Any, Any] = make(
            _outermost(method, call_next, self._unknown, read, streams=streams),
            _lenient(handler.request_deserializer),
            handler.response_serializer,
        )
        return wrapped


class _Methods(grpc.GenericRpcHandler):
    """All methods, by their paths. gRPC would ask one handler for each service, at every call."""

    def __init__(self) -> None:
        self.handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self.handlers.get(handler_call_details.method)


def _outermost(
    method: Method,
    call_next: CallNext,
    unknown: UnknownCallers | None,
    read: Callable[[Any, Context], Awaitable[Any]],
    *,
    streams: bool,
) -> Callable[[Any, Context], Awaitable[Any]]:
    """Return the handler that gRPC calls.

    gRPC inspects whether a handler is a coroutine function, so it must not be a partial or an
    object with `__call__`.
    """
    checked = None if method.is_public else unknown

    async def run(requests: Any, context: Context) -> Any:
        call = RpcCall(method, context, streams=streams)
        if checked is not None and not checked.admit(call.metadata.get("authorization")):
            await context.abort_with_status(_OVERLOADED)
        return await call_next(call, await read(requests, context), context)

    return run


async def _pass_on(requests: Any, _context: Context) -> Any:
    return requests


def _innermost(behaviour: Behaviour) -> CallNext:
    """Return what is inside of all interceptors: the servicer's method, for a decoded request."""

    async def run(call: RpcCall, request: Any, _context: Context) -> Any:
        if request is _UNDECODABLE or request is grpc.aio.EOF:
            raise InvalidRequest(UNDECODABLE)
        return await behaviour(request, call)

    return run


def _awaitable(behaviour: Any) -> Behaviour:
    if not inspect.isasyncgenfunction(behaviour):
        plain: Behaviour = behaviour
        return plain

    async def run(request: Any, call: RpcCall) -> None:
        # Closed when the call ends, however it does; and what was sent is not kept while the
        # stream is quiet.
        async with contextlib.aclosing(behaviour(request, call)) as responses:
            async for response in responses:
                await call.write(response)
                del response

    return run


_OVERLOADED: Final = rpc_status.to_status(status_of(Overloaded()))
_UNDECODABLE: Final = object()
"""Stands for a request that is not a message of its type, on its way through the interceptors."""


def _lenient(deserialize: Any) -> Callable[[bytes], Any]:
    """Leave undecodable bytes to the interceptors: gRPC itself would answer UNKNOWN, unseen."""

    def run(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _UNDECODABLE

    return run
