"""What all of the client stands on: an address, an API key, and a channel while it is open."""

from datetime import timedelta
from types import TracebackType
from typing import Final, Self

import grpc

from milepost_client.calls import Calls
from milepost_client.channel import open_channel
from milepost_client.pace import Duration, seconds

DEADLINE: Final = timedelta(seconds=10)
"""How long one call may take, all its tries together, unless told otherwise."""


class Connection:
    """A connection to a Milepost service, open inside ``async with``.

    Args:
        address: Where the service is, such as ``127.0.0.1:7450`` or ``dns:///milepost:7450``.
        api_key: Who calls: an API key, or a token (JWT) of an issuer that the service trusts. Sent
            with every call, and shown nowhere. ``None`` where the client certificate in `tls`
            says who calls.
        tls: The credentials of the channel, for an authority or a client certificate of your own
            (`read_tls`, or ``grpc.ssl_channel_credentials``). By default TLS with the roots of the
            system, and no encryption to the loopback interface.
        insecure: Admit an unencrypted channel to another machine, which exposes the API key.
        deadline: How long one call may take, all its tries together.

    Raises:
        ValueError: The API key has characters that none has, or `tls` and `insecure` are given.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None,
        tls: grpc.ChannelCredentials | None = None,
        insecure: bool = False,
        deadline: Duration = DEADLINE,
    ) -> None:
        if api_key is not None and not _is_word(api_key):
            raise ValueError("an API key is one word of ASCII; is there a line end in it?")
        if tls and insecure:
            raise ValueError("tls and insecure exclude each other")
        self._address = address
        self._api_key = api_key
        self._tls = tls
        self._insecure = insecure
        self._deadline = seconds(deadline)
        self._channel: grpc.aio.Channel | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address!r})"

    async def __aenter__(self) -> Self:
        """Open the channel. It connects with the first call.

        Raises:
            RuntimeError: It is open already.
        """
        if self._channel is not None:
            raise RuntimeError(f"{self!r} is open already")
        self._channel = open_channel(self._address, tls=self._tls, insecure=self._insecure)
        self._opened = Calls(self._channel, api_key=self._api_key, deadline=self._deadline)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the channel. Calls in flight are cancelled."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    @property
    def _calls(self) -> Calls:
        """The way to call the service, while the channel is open."""
        if self._channel is None:
            raise RuntimeError(f"{self!r} is not open: use it in a with statement")
        return self._opened


def _is_word(text: str) -> bool:
    return text.isascii() and text.isprintable() and len(text.split()) == 1
