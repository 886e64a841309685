"""The questions that access answers about a call, asked of gRPC calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from milepost import telemetry
from milepost.access.policy import authorize
from milepost.api.logged_ids import audited_ids
from milepost.api.progress_updates import separated
from milepost.api.renewals import renewed_by
from milepost.rpc.certificates import certificate_names

if TYPE_CHECKING:
    from milepost.access.admission import Admission
    from milepost.access.authenticator import Authenticator
    from milepost.access.rate_limits import RateLimits
    from milepost.rpc.call import Context, RpcCall
    from milepost.rpc.interceptors.chain import CallNext


class AdmissionInterceptor:
    """Refuses calls while the replica drains or is full; health goes on answering."""

    def __init__(self, admission: Admission) -> None:
        """Ask `admission`."""
        self._admission = admission

    async def intercept(
        self, call_next: CallNext, call: RpcCall, request: Any, context: Context
    ) -> Any:
        """Let the call on if there is room for it."""
        if call.method.is_public:
            return await call_next(call, request, context)
        with self._admission.admit(waits=call.waits, streams=call.streams):
            return await call_next(call, request, context)


class AuthInterceptor:
    """Puts the principal on the call, and refuses those that may not call the method.

    A call that waits or streams ends when its credential is good no longer.
    """

    def __init__(self, authenticator: Authenticator) -> None:
        """Ask `authenticator`."""
        self._authenticator = authenticator

    async def intercept(
        self, call_next: CallNext, call: RpcCall, request: Any, context: Context
    ) -> Any:
        """Let the call on if its principal has a role of the method."""
        if not call.method.is_public:
            call.authenticated = await self._authenticator.authenticate(
                call.credential,
                lambda: call.address,
                lambda: certificate_names(context),
            )
            authorize(call.principal, call.method)
            if call.waits:
                async with self._authenticator.while_good(call.credential):
                    return await call_next(call, request, context)
        return await call_next(call, request, context)


class AuditInterceptor:
    """Logs every success of a method that is audited."""

    async def intercept(
        self, call_next: CallNext, call: RpcCall, request: Any, context: Context
    ) -> Any:
        """Log the call once it has succeeded."""
        response = await call_next(call, request, context)
        if call.method.audited:
            telemetry.record_change(call.principal, audited_ids(request, response))
        return response


class RateLimitInterceptor:
    """Refuses calls, and ends streams, of a principal that exceeds its rates.

    It hands the updates of a stream on one by one, because each is charged by itself.
    """

    def __init__(self, rate_limits: RateLimits) -> None:
        """Ask `rate_limits`."""
        self._rate_limits = rate_limits

    async def intercept(
        self, call_next: CallNext, call: RpcCall, request: Any, context: Context
    ) -> Any:
        """Let the call on if its principal has one left; messages of a stream cost the same."""
        if not call.method.is_public:
            operation_id = None if call.streams else getattr(request, "operation_id", "")
            await self._rate_limits.charge(
                call.principal, call.method, operation_id=operation_id, renews=renewed_by(request)
            )
            if call.streams and hasattr(request, "__aiter__"):
                request = self._rate_limits.charged(
                    separated(request), call.principal, call.method, renews=renewed_by
                )
        return await call_next(call, request, context)
