"""Admission: whether this replica takes calls at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from milepost.domain.errors import Draining
from milepost.rpc.interceptors.auth import is_public
from milepost.rpc.interceptors.running import Running

if TYPE_CHECKING:
    from milepost.rpc.interceptors.chain import Call, Context, Proceed


class Admission:
    """Turns calls away once the replica is draining; health goes on answering."""

    def __init__(self) -> None:
        """Take calls."""
        self._draining = False
        self.running = Running()
        """Those that were let in. Whoever watches health is not among them, and may go on."""

    def close(self) -> None:
        """Take no more calls; those that run go on."""
        self._draining = True

    async def around(self, proceed: Proceed, call: Call, request: Any, context: Context) -> Any:
        """Let the call in, or say that another replica will answer it."""
        if is_public(call.method):
            return await proceed(call, request, context)
        if self._draining:
            raise Draining
        self.running.enter()
        try:
            return await proceed(call, request, context)
        finally:
            self.running.leave()
