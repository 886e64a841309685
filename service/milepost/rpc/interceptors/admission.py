"""Admission: whether this replica takes calls at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from milepost.domain.errors import Draining
from milepost.rpc.interceptors.auth import is_public

if TYPE_CHECKING:
    from milepost.rpc.interceptors.chain import Context, Proceed


class Admission:
    """Turns calls away once the replica is draining; health goes on answering."""

    def __init__(self) -> None:
        """Take calls."""
        self._draining = False

    def close(self) -> None:
        """Take no more calls; those that run go on."""
        self._draining = True

    async def around(self, method: str, request: Any, context: Context, proceed: Proceed) -> Any:
        """Let the call in, or say that another replica will answer it."""
        if self._draining and not is_public(method):
            raise Draining
        return await proceed(request, context)
