"""One gRPC call, as interceptors and servicers see it."""

from __future__ import annotations

import functools
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

from milepost.api.call import StreamingCall
from milepost.api.prefer_header import HEADER, preferred_wait

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message
    from grpc.aio import ServicerContext

    from milepost.access.method import Method

    Context = ServicerContext[Any, Any]

CREDENTIAL_HEADER: Final = "authorization"


class RpcCall(StreamingCall):
    """One gRPC call on its way through the interceptors to its servicer."""

    __slots__ = ("_has_repeated_headers", "context", "metadata", "streams")

    def __init__(self, method: Method, context: Context, *, streams: bool = False) -> None:
        """Read what interceptors need of `context`; `streams` if either side sends a stream."""
        # Asked for at once: after the end of a call this question ends the process (gRPC 1.85).
        super().__init__(method, context.peer())
        self.context = context
        metadata = context.invocation_metadata() or ()
        self.metadata: Mapping[str, str | bytes] = dict(metadata)
        self._has_repeated_headers = len(self.metadata) < len(metadata)
        self.streams = streams

    @property
    def waits(self) -> bool:
        """True if the call may wait for a change instead of just running."""
        return self.streams or self.method.long_running or HEADER in self.metadata

    @property
    def seconds_left(self) -> float | None:
        """The time to the deadline of the caller; None without one."""
        left: float | None = self.context.time_remaining()
        return left

    @property
    def preferred_wait(self) -> int:
        """The seconds for which the caller prefers to wait for a change; 0 for not at all."""
        if HEADER not in self.metadata:  # it is rare, and to read all metadata again costs much
            return 0
        return preferred_wait(self.context.invocation_metadata() or ())

    async def write(self, message: Message) -> Any:
        """Send one message of the service's side."""
        return await self.context.write(message)

    @property
    def credential(self) -> str | bytes | None:
        """The credential of the call, or None if it has none.

        Several are no valid credential: which one counts would depend on who reads them.
        """
        if self._has_repeated_headers:
            names = [name for name, _ in self.context.invocation_metadata() or ()]
            if names.count(CREDENTIAL_HEADER) > 1:
                return ""
        return self.metadata.get(CREDENTIAL_HEADER)

    @property
    def address(self) -> str:
        """The address of the connection without its port, or the kind of one without addresses."""
        return address_of(self.peer)


@functools.lru_cache(maxsize=1_024)
def address_of(peer: str) -> str:
    """Return the address in gRPC's name of a peer, without its port; or its kind, as ``unix``."""
    kind, _, rest = peer.partition(":")
    host = urllib.parse.unquote(rest).rpartition(":")[0].strip("[]")
    return host if kind in {"ipv4", "ipv6"} else kind
