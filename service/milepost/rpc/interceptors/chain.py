"""One way around every RPC: the same links, in the same order, for unary calls and streams.

Handlers are wrapped once, when they are registered, not at every call. A stream is run by the
innermost function, so that a link sees each RPC, of whatever shape, as one awaitable.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc
from google.protobuf.message import DecodeError

from milepost.domain.errors import InvalidRequest, Violation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from grpc.aio import Server, ServicerContext

    Context = ServicerContext[Any, Any]
    Behaviour = Callable[[Any, Context], Awaitable[Any]]
    CallNext = Callable[["Call", Any, Context], Awaitable[Any]]


class Call:
    """One call on its way through the links."""

    __slots__ = ("metadata", "method", "streams")

    def __init__(
        self, method: str, metadata: Mapping[str, str | bytes], *, streams: bool = False
    ) -> None:
        """Keep what all links ask for; `streams` if either side sends a stream."""
        self.method = method
        self.metadata = metadata
        self.streams = streams


class Interceptor(Protocol):
    """Something that every call passes through."""

    async def intercept(
        self, call_next: CallNext, call: Call, request: Any, context: Context
    ) -> Any:
        """Await `call_next(call, request, context)` and return the response.

        The request is a message or an iterator; the response is a message, or None for a stream.
        """


class InterceptedServer:
    """Stands in for the server while services are added, and puts the links around them."""

    def __init__(self, server: Server, links: Iterable[Interceptor]) -> None:
        """Wrap `links`, outermost first, around what is added."""
        self._links = tuple(links)
        self._methods = _Methods()
        self.services: list[str] = []
        server.add_generic_rpc_handlers((self._methods,))

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Do nothing: the same handlers arrive below, by name."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Register the methods of one service, each inside all links."""
        self.services.append(service)
        for name, handler in handlers.items():
            method = f"{service}/{name}"
            self._methods.handlers[f"/{method}"] = self._wrap(handler, method)

    def _wrap(
        self, handler: grpc.RpcMethodHandler[Any, Any], method: str
    ) -> grpc.RpcMethodHandler[Any, Any]:
        shape = ("stream_" if handler.request_streaming else "unary_") + (
            "stream" if handler.response_streaming else "unary"
        )
        call_next = _innermost(_awaitable(getattr(handler, shape)))
        for link in reversed(self._links):
            call_next = functools.partial(link.intercept, call_next)
        make = getattr(grpc, f"{shape}_rpc_method_handler")
        wrapped: grpc.RpcMethodHandler[Any, Any] = make(
            _outermost(method, call_next, streams=shape != "unary_unary"),
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


def _outermost(method: str, call_next: CallNext, *, streams: bool) -> Behaviour:
    """Return what gRPC calls. A plain function: it asks at every call what it has been given."""

    async def run(request: Any, context: Context) -> Any:
        metadata = dict(context.invocation_metadata() or ())
        return await call_next(Call(method, metadata, streams=streams), request, context)

    return run


def _innermost(behaviour: Behaviour) -> CallNext:
    """Return what is inside of all links: the servicer's method, if the request could be read."""

    async def run(_call: Call, request: Any, context: Context) -> Any:
        if request is _UNREADABLE:
            raise InvalidRequest(Violation("request", "is not a message of its type"))
        return await behaviour(request, context)

    return run


def _awaitable(behaviour: Any) -> Behaviour:
    if not inspect.isasyncgenfunction(behaviour):
        plain: Behaviour = behaviour
        return plain

    async def run(request: Any, context: Context) -> None:
        # Closed when the call ends, however it does; and what was sent is not kept while the
        # stream is quiet.
        async with contextlib.aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                await context.write(response)
                del response

    return run


_UNREADABLE: Final = object()
"""Stands for a request whose bytes are no message of its type, on its way through the links."""


def _lenient(deserialize: Any) -> Callable[[bytes], Any]:
    """Leave bytes that cannot be read to the chain: gRPC itself would answer UNKNOWN, unseen."""

    def run(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _UNREADABLE

    return run
