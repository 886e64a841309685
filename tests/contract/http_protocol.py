"""A second protocol, plain HTTP: everything that a protocol adds, in one file.

`POST /operations` with a JSON object creates an operation, `GET /operations/{id}` reads one.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from milepost import telemetry
from milepost.access.audit import record_refusal
from milepost.access.call import Call
from milepost.access.checks import AccessChecks
from milepost.access.method import Method
from milepost.access.policy import UseCase, authorize
from milepost.domain import errors
from milepost.domain.operation import CreateRequest, Operation, OperationId
from milepost.domain.rates import RateLimitClass
from milepost.tracking.tracker import Tracker

CREATE: Final = Method(
    name="POST /operations",
    use_case=UseCase.CREATE_OPERATION,
    rate_limit=RateLimitClass.CREATES,
)
READ: Final = Method(
    name="GET /operations/{id}",
    use_case=UseCase.READ_OPERATION,
    rate_limit=RateLimitClass.READS,
    audited=True,
)
NO_ROW: Final = Method(name="DELETE /operations/{id}")
STATUSES: Final[dict[type[errors.MilepostError], int]] = {
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.OperationNotFound: 404,
    errors.LimitReached: 429,
    errors.Unavailable: 503,
}


def credential(request: web.Request) -> str | None:
    """Return the credential; several are as bad as an empty one."""
    found = request.headers.getall("Authorization", [])
    return found[0] if len(found) == 1 else "" if found else None


Serve = Callable[[Call, web.Request], Awaitable[Operation]]


class HttpProtocol:
    """Serves `tracker` over HTTP to callers that pass `checks`."""

    def __init__(self, tracker: Tracker, checks: AccessChecks, tracing: telemetry.Tracing) -> None:
        self._tracker = tracker
        self._checks = checks
        self._tracing = tracing

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application()
        app.router.add_post("/operations", self._handler(CREATE, self._create))
        app.router.add_get("/operations/{id}", self._handler(READ, self._read))
        app.router.add_delete("/operations/{id}", self._handler(NO_ROW, self._read))
        return app

    async def _create(self, call: Call, request: web.Request) -> Operation:
        create_request = CreateRequest(**await request.json())
        return (await self._tracker.create(call.principal, create_request)).operation

    async def _read(self, call: Call, request: web.Request) -> Operation:
        return await self._tracker.get(call.principal, OperationId(request.match_info["id"]))

    def _handler(self, method: Method, serve: Serve) -> Any:
        """Return the adapter, which does for HTTP what the interceptors do for gRPC."""

        async def handle(request: web.Request) -> web.Response:
            call = Call(method, f"http:{request.remote}")
            caller = request.headers.get("traceparent")
            self._tracing.start(method.name, caller, peer=call.peer)
            ids = {"operation_id": request.match_info.get("id", "")}
            try:
                with self._checks.admission.admit(waits=method.long_running):
                    call.authenticated = await self._checks.authenticator.authenticate(
                        credential(request), lambda: request.remote or ""
                    )
                    authorize(call.principal, method)
                    await self._checks.rate_limits.charge(call.principal, method)
                    operation = await serve(call, request)
            except errors.MilepostError as error:
                status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
                record_refusal(error, call.authenticated, ids, code=str(status))
                return web.json_response({"reason": error.reason}, status=status)
            if method.audited:
                telemetry.record_change(call.principal, {"operation_id": operation.id})
            return web.json_response({"id": operation.id, "status": operation.status})

        return handle
