"""The ports that the processes of one supervisor share and no other process gets."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from milepost.config import split_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from milepost.config import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The addresses of the shared ports."""

    grpc: str
    api: str = ""
    """Of the API over HTTP; empty if it is not served."""


@contextlib.contextmanager
def held_ports(settings: Settings) -> Iterator[Ports]:
    """Hold the shared ports inside of the context.

    Raises:
        OSError: a port is not free.
    """
    with contextlib.ExitStack() as stack:
        grpc = stack.enter_context(_held(settings.listen))
        api = stack.enter_context(_held(settings.http_listen)) if settings.serves_http_api else ""
        yield Ports(grpc=grpc, api=api)


@contextlib.contextmanager
def _held(address: str) -> Iterator[str]:
    """Hold a port for the processes of this supervisor; yield its address.

    The socket never listens, so it gets no connection. It is bound as the only one, which fails if
    any process listens on the port. Only then it admits sockets with SO_REUSEPORT of the same user,
    as the processes have. A process that comes later, such as another supervisor, is refused: it
    begins without SO_REUSEPORT.
    """
    host, port = split_address(address)
    family, _, _, _, target = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as holder:
        # While it binds only: ended connections may still be in TIME_WAIT.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(target)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield f"{address.removesuffix(port)}{holder.getsockname()[1]}"
