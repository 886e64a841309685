"""The API over HTTP: every unary method, and watches as server-sent events.

An adapter of the same servicers, and of the same checks, as the gRPC port. `access/checks.py` says
which checks a call passes, and in which order.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from http import HTTPStatus
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiohttp import web
from opentelemetry import trace

from milepost import telemetry
from milepost.access.policy import authorize
from milepost.access.running_calls import RunningCalls
from milepost.access.unknown_callers import UnknownCallers
from milepost.api.call_groups import CallGroups
from milepost.api.errors import defect, log_refusal, refusal_of
from milepost.api.logged_ids import audited_ids, logged_ids
from milepost.api.methods import method_of
from milepost.api.renewals import renewed_by
from milepost.domain.errors import MilepostError, Overloaded
from milepost.domain.operation import ID_PATTERN
from milepost.telemetry import conventions
from milepost.web.event_streams import refused_for_now, send_events
from milepost.web.http_call import HttpCall
from milepost.web.problems import problem_of_status, problem_response, response_of_refusal
from milepost.web.requests import message_of
from milepost.web.responses import response_of
from milepost.web.routes import routes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from milepost.access.checks import AccessChecks
    from milepost.api.refusals import Refusal
    from milepost.api.services import Service
    from milepost.web.connections import HttpConnections
    from milepost.web.event_streams import Refuse
    from milepost.web.routes import Route


class HttpApi:
    """The paths of the services, behind the checks that every call passes."""

    def __init__(
        self,
        services: Iterable[Service],
        access: AccessChecks,
        connections: HttpConnections,
        tracing: telemetry.Tracing,
        *,
        token_in_query: bool = False,
        batching: bool = True,
    ) -> None:
        """Serve `services` to callers that pass `access`. Create it on a running event loop.

        Args:
            services: what to serve.
            access: the checks.
            connections: keep the connections of admitted calls open.
            tracing: creates a span for each sampled call.
            token_in_query: accept the credential of a watch in the query.
            batching: let concurrent calls go on in groups.
        """
        self._services = tuple(services)
        self._access = access
        self._unknown = UnknownCallers(access.authenticator.is_known)
        self._connections = connections
        self._tracing = tracing
        self._token_in_query = token_in_query
        self._groups = CallGroups() if batching else None
        self._running = RunningCalls()
        telemetry.count_running("http", lambda: self._running.count)

    def add_to(self, app: web.Application) -> None:
        """Add the paths to an application."""
        for route in routes_of(self._services):
            handle = functools.partial(self._handle, route)
            app.router.add_route(route.verb, route.path, handle)
            if route.verb == "GET" and not route.is_watch:  # aiohttp sends no body then
                app.router.add_route("HEAD", route.path, handle)

    async def _handle(self, route: Route, request: web.Request) -> web.StreamResponse:
        """Answer one request, whatever happens inside."""
        in_query = route.is_watch and self._token_in_query
        call = HttpCall(method_of(route.method), request, token_in_query=in_query)
        with self._observed(route, call) as outcome:
            response = await self._respond(route, call, outcome)
            outcome.status = response.status
            return response

    async def _respond(self, route: Route, call: HttpCall, outcome: _Outcome) -> web.StreamResponse:
        request = call.request
        subject: Any = SimpleNamespace(**request.match_info)  # until the request is read

        def refuse(error: Exception) -> Refusal:
            refusal = _refusal(error, call, subject)
            outcome.code = refusal.code.name
            return refusal

        try:
            self._admit_unknown(call)
            with self._admitted(route, call):
                await self._authenticate(call)
            with self._connections.held(request.transport):
                # A body that arrives slowly takes no place of a running call.
                subject = await message_of(route, call)
                with self._admitted(route, call):
                    return await self._answer(route, call, subject, refuse)
        except web.HTTPException as error:
            outcome.code = "INVALID_ARGUMENT"
            return problem_response(problem_of_status(HTTPStatus(error.status), error.reason))
        except Exception as error:  # noqa: BLE001 - the one place where nothing may get through
            response = response_of_refusal(refuse(error))
            return refused_for_now(response, request) if route.is_watch else response

    def _admitted(self, route: Route, call: HttpCall) -> AbstractContextManager[None]:
        return self._access.admission.admit(waits=call.waits, streams=route.is_watch)

    def _admit_unknown(self, call: HttpCall) -> None:
        if not self._unknown.admit(call.credential):
            raise Overloaded

    async def _authenticate(self, call: HttpCall) -> None:
        call.authenticated = await self._access.authenticator.authenticate(
            call.credential, lambda: call.address, call.certificate_names
        )
        authorize(call.principal, call.method)

    def _while_good(self, call: HttpCall) -> AbstractAsyncContextManager[None]:
        return self._access.authenticator.while_good(call.credential)

    async def _answer(
        self, route: Route, call: HttpCall, message: Any, refuse: Refuse
    ) -> web.StreamResponse:
        """Charge the call, let the servicer answer it, and audit it."""
        operation_id = getattr(message, "operation_id", "")
        await self._access.rate_limits.charge(
            call.principal, call.method, operation_id=operation_id, renews=renewed_by(message)
        )
        if route.is_watch:
            watch, held = route.behaviour(message, call), self._while_good(call)
            return await send_events(watch, call.request, refuse, held)
        response = await self._served(route, call, message)
        if call.method.audited:
            telemetry.record_change(call.principal, audited_ids(message, response))
        return response_of(route, response, call.request)

    async def _served(self, route: Route, call: HttpCall, message: Any) -> Any:
        """Return the response of the servicer, to concurrent calls together."""
        if call.waits:
            async with self._while_good(call):
                return await route.behaviour(message, call)
        if self._groups is None:
            return await route.behaviour(message, call)
        return await self._groups.intercept(lambda call: route.behaviour(message, call), call)

    @contextlib.contextmanager
    def _observed(self, route: Route, call: HttpCall) -> Iterator[_Outcome]:
        """Time, count and trace a call with its true code."""
        self._running.enter()
        start, outcome, name = time.perf_counter(), _Outcome(), f"{route.verb} {route.template}"
        caller = call.request.headers.get("traceparent")
        traced = self._tracing.start(call.method.name, caller, peer=call.peer, name=name)
        current: AbstractContextManager[object] = contextlib.nullcontext()
        if traced.span is not None:
            traced.span.set_attributes(_attributes(route, call))
            current = trace.use_span(
                traced.span, record_exception=False, set_status_on_exception=False
            )
        try:
            with current:
                yield outcome
        except asyncio.CancelledError:
            outcome.code = "CANCELLED"
            raise
        finally:
            traced.end(outcome.attributes(), error=outcome.error)
            telemetry.record_call(call.method.name, outcome.code, time.perf_counter() - start)
            self._running.leave()


def _refusal(error: Exception, call: HttpCall, subject: Any) -> Refusal:
    """Log why a call is refused, or that it met a defect, and return the refusal."""
    if isinstance(error, MilepostError):
        log_refusal(error, call, subject)
        return refusal_of(error, call.method)
    telemetry.record_defect(error, call.authenticated, logged_ids(subject))
    return defect(telemetry.current_trace_id())


class _Outcome:
    """The code of a call, as gRPC names it, and the status of its response."""

    __slots__ = ("code", "status")

    def __init__(self) -> None:
        self.code = "OK"
        self.status: int | None = None
        """None if the caller has gone before the response."""

    @property
    def error(self) -> str | None:
        """The class of the error, if it is one of the service."""
        is_ours = self.status is not None and self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        return str(self.status) if is_ours else None

    def attributes(self) -> dict[str, str | int]:
        """Return the attributes of the span."""
        found: dict[str, str | int] = {"milepost.code": self.code}
        return found if self.status is None else found | {"http.response.status_code": self.status}


def _attributes(route: Route, call: HttpCall) -> dict[str, str | int]:
    """Return the attributes of the span of a request, without the texts of its caller."""
    request = call.request
    path = request.path if all(map(_is_id, request.match_info.values())) else route.template
    local = request.transport and request.transport.get_extra_info("sockname")
    return {
        **conventions.http_request(route.verb, route.template, path, scheme=request.scheme),
        **conventions.client(conventions.place_of_peer(call.peer)),
        **conventions.server(local[:2] if local else None),
    }


def _is_id(text: str) -> bool:
    return ID_PATTERN.fullmatch(text) is not None
