"""Calls whose request has not arrived yet.

gRPC would keep a call without its request for as long as its connection, some 20 KiB each, before
any check of the service could see it. So the service reads requests itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry
from milepost.domain.errors import Overloaded
from milepost.rpc.interceptors.errors import abort

if TYPE_CHECKING:
    from milepost.rpc.call import Context

MAX_UNREAD_CALLS: Final = 2_000


class UnreadCalls:
    """Reads the requests of unary calls, and bounds the number of those that wait for one.

    Above the bound the call that has waited longest is refused. A request usually arrives together
    with its call, so that one belongs to a client that does not send.
    """

    def __init__(self) -> None:
        """Start without calls."""
        self._waiting: dict[asyncio.Task[Any], None] = {}

    async def read(self, _requests: Any, context: Context) -> Any:
        """Return the request of a call, or `EOF` if the client has sent only the end."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a handler of gRPC is one
        self._waiting[task] = None
        if len(self._waiting) > MAX_UNREAD_CALLS:
            self._refuse_oldest()
        try:
            return await context.read()
        except asyncio.CancelledError:
            if task in self._waiting:  # cancelled by its caller
                raise
            await abort(context, Overloaded())
        finally:
            self._waiting.pop(task, None)

    def _refuse_oldest(self) -> None:
        oldest = next(iter(self._waiting))
        del self._waiting[oldest]
        oldest.cancel()
        telemetry.record_limited("unread_calls")
