"""The gRPC port, which the processes of one supervisor share and no other process gets."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def held_port(host: str, port: int) -> Iterator[int]:
    """Hold the port for the processes of this supervisor; yield its number.

    The socket never listens, so it gets no connection. It is bound as the only one, which fails if
    any process listens on the port. Only then it admits sockets with SO_REUSEPORT of the same user,
    as the processes have. A process that comes later, such as another supervisor, is refused: it
    begins without SO_REUSEPORT.

    Raises:
        OSError: the port is not free.
    """
    family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as holder:
        # While it binds only: ended connections may still be in TIME_WAIT.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(target)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield int(holder.getsockname()[1])
