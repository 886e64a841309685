"""A limit on the time of statements on one connection to PostgreSQL, whatever the server does."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def time_limit(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Abort `connection` if the block takes longer: the server may never answer."""
    timer = threading.Timer(seconds, shut_down, (connection,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def shut_down(connection: psycopg.Connection[Any]) -> None:
    """Shut down the socket of a connection, from another thread; its statement fails."""
    with contextlib.suppress(OSError, psycopg.Error):  # it is closed already
        sock = socket.socket(fileno=connection.pgconn.socket)
        try:
            sock.shutdown(socket.SHUT_RDWR)
        finally:
            sock.detach()  # the descriptor is the driver's, which closes it
