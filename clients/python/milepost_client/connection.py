"""The connection under the whole client: an address, an API key, and a channel while it is open."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

import grpc

from milepost_client.calls import Calls
from milepost_client.channel import open_channel
from milepost_client.credential import Credential, TokenSource
from milepost_client.pace import Duration, seconds

DEADLINE: Final = timedelta(seconds=10)
"""The default deadline of one call, all its tries together."""


_FORKED: Final = (
    "gRPC, which was in use before the fork, would hang in this process: fork before the first"
    " client is opened, or start the process with spawn or forkserver"
)
_used_by: set[int] = set()
"""The processes in which a client was opened: this one, and those that it was forked from."""


class Connection:
    """A connection to a Milepost service, open inside ``async with``, or from `open` to `close`.

    It belongs to the process and the event loop in which it was opened.

    Args:
        address: The address of the service, such as ``127.0.0.1:7450`` or
            ``dns:///milepost:7450``.
        api_key: The credential of the caller: an API key, or a token (JWT) of an issuer that the
            service trusts. It is sent with every call, and never shown. ``None`` if the client
            certificate in `tls` identifies the caller, or with `token`.
        token: Instead of `api_key`, a function that returns the token of each call, for tokens
            that expire; it may be a coroutine function. It is called before every try of every
            call, so it keeps a token until that is about to expire.
        tls: The credentials of the channel, for an authority or a client certificate of your own
            (`read_tls`, or ``grpc.ssl_channel_credentials``). By default TLS with the roots of the
            system, and no encryption to the loopback interface.
        insecure: Allow an unencrypted channel to another machine, which exposes the API key.
        deadline: The deadline of one call, all its tries together.

    Raises:
        ValueError: The address is empty or a URL, the API key is not one word of ASCII, or both
            `api_key` and `token`, or `tls` and `insecure`, are given.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        token: TokenSource | None = None,
        tls: grpc.ChannelCredentials | None = None,
        insecure: bool = False,
        deadline: Duration = DEADLINE,
    ) -> None:
        if tls and insecure:
            raise ValueError("tls and insecure exclude each other")
        if not address or address.startswith(("http://", "https://")):
            # gRPC would look for a machine of such a name.
            raise ValueError(f"{address!r} is not an address such as 127.0.0.1:7450")
        self._address = address
        self._credential = Credential(api_key, token)
        self._tls = tls
        self._insecure = insecure
        self._deadline = seconds(deadline)
        self._channel: grpc.aio.Channel | None = None
        self._process_id = os.getpid()
        self._before_close: set[Callable[[], Awaitable[None]]] = set()
        """Calls that still need the channel, for what must not outlive it."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address!r})"

    async def open(self) -> Self:
        """Open the channel, and return the client. It connects with the first call.

        Raises:
            RuntimeError: It is open already, or this process was forked from one in which a client
                was open.
        """
        if self._channel is not None:
            raise RuntimeError(f"{self!r} is open already")
        if _used_by - {os.getpid()}:
            raise RuntimeError(_FORKED)
        _used_by.add(os.getpid())
        self._process_id = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._channel = open_channel(self._address, tls=self._tls, insecure=self._insecure)
        self._opened = Calls(self._channel, credential=self._credential, deadline=self._deadline)
        return self

    async def close(self) -> None:
        """Close the channel. Calls in flight are cancelled. A closed client stays closed."""
        channel, self._channel = self._channel, None
        if channel is not None and not self._is_forked:
            await channel.close()

    async def __aenter__(self) -> Self:
        """Open the client; see `open`."""
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client; see `close`."""
        await self.close()

    @property
    def _is_forked(self) -> bool:
        """True in a process that was forked after the client was opened."""
        return self._process_id != os.getpid()

    @property
    def _calls(self) -> Calls:
        """The calls of the open channel.

        gRPC would hang, or worse, in a forked process and in another event loop.
        """
        if self._channel is None:
            raise RuntimeError(f"{self!r} is not open: use a with statement, or call open()")
        if self._is_forked:
            raise RuntimeError(f"{self!r} was opened before a fork: {_FORKED}")
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError(f"{self!r} was opened in another event loop: open one per loop")
        return self._opened
