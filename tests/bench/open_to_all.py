"""The command line of the service, which serves without authentication and limits.

Every call is let in as the owner of what the bench made. Only this module can run that: the service
itself has no such setting.

    python -m tests.bench.open_to_all serve
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from milepost.cli import app
from milepost.domain.operation import Principal, Role
from milepost.rpc import server
from tests.bench.messages import OWNER

if TYPE_CHECKING:
    from milepost.rpc.call import Context, RpcCall
    from milepost.rpc.interceptors.chain import CallNext

ANYBODY: Final = Principal(
    subject=OWNER, roles=frozenset({Role.CALLER, Role.WORKER}), credential_id="nobody"
)


class Open:
    """An interceptor in the place of another, whatever that is made with."""

    def __init__(self, *_given: object, **_options: object) -> None:
        """Look at nothing."""

    async def intercept(
        self, call_next: CallNext, call: RpcCall, request: Any, context: Context
    ) -> Any:
        """Let the call on."""
        return await call_next(call, request, context)


class OpenDoor(Open):
    """Lets everybody in."""

    async def intercept(
        self, call_next: CallNext, call: RpcCall, request: Any, context: Context
    ) -> Any:
        """Let the call in."""
        call.authenticated = ANYBODY
        return await call_next(call, request, context)


if __name__ == "__main__":
    with mock.patch.multiple(server, AuthInterceptor=OpenDoor, RateLimitInterceptor=Open):
        app()
