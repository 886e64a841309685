"""Connection to the service as a client: its options, and its errors as exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from milepost.cli.errors import CommandError, ExitCode, settings_failures, wrong_usage
from milepost.cli.output import warn
from milepost.cli.values import quoted

if TYPE_CHECKING:
    from milepost_client import Milepost, MilepostError

T = TypeVar("T")

_GRPC_PORT: Final = 7450
DEFAULT_ADDRESS: Final = f"127.0.0.1:{_GRPC_PORT}"
_CONNECT_S: Final = 2.0
_MAX_PORT: Final = 65_535
_HOST_PORT: Final = re.compile(r"(?:\[[^\]\s]+\]|[^\s:/\[\]]+):(\d{1,5})")
_SCHEMES: Final = ("dns:", "ipv4:", "ipv6:", "unix:")
"""Other target schemes of gRPC."""


def address_of(text: str) -> str:
    """Return an address of a service; raise `BadParameter` if it is malformed."""
    found = _HOST_PORT.fullmatch(text)
    known = text.startswith(_SCHEMES) or (found and int(found[1]) <= _MAX_PORT)
    if not known:
        raise typer.BadParameter(f"{quoted(text)} must be HOST:PORT")
    return text


def _default_address() -> str:
    """Return the address of the settings file, or the default one."""
    from milepost import config

    with settings_failures():
        return config.client_value(config.ADDRESS) or DEFAULT_ADDRESS


def _default_key() -> str | None:
    """Return the API key of the settings file, with a warning if every user can read it."""
    from milepost import config

    with settings_failures():
        key = config.client_value(config.API_KEY)
    for line in config.exposed_secrets(config.API_KEY) if key else ():
        warn(line)
    return key


AddressOption = Annotated[
    str,
    typer.Option(
        "--address",
        envvar="MILEPOST_ADDRESS",
        parser=address_of,
        metavar="HOST:PORT",
        default_factory=_default_address,
        show_default=DEFAULT_ADDRESS,
        help="Address of the service.",
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="MILEPOST_API_KEY",
        metavar="KEY",
        default_factory=_default_key,
        show_default=False,
        help="API key. Prefer the variable or the settings file: other users of this machine can"
        " see arguments.",
    ),
]
InsecureOption = Annotated[
    bool,
    typer.Option("--insecure", help="Call another machine without TLS, which exposes the key."),
]


@contextlib.asynccontextmanager
async def connected(
    address: str, api_key: str | None, *, insecure: bool
) -> AsyncIterator[Milepost]:
    """Open a client; an error of the service inside becomes a `CommandError`."""
    from milepost.config import client_tls_files

    with settings_failures():
        files = client_tls_files()
    if not api_key and "certificate_file" not in files:
        raise wrong_usage(
            "an API key is needed: set MILEPOST_API_KEY, in the environment or in the settings file"
            " (create one with milepost keys create)",
            reason="API_KEY_NEEDED",
        )
    from milepost_client import Milepost, MilepostError, read_tls

    try:
        tls = read_tls(**files) if files else None
        client = Milepost(address, api_key=api_key or None, tls=tls, insecure=insecure)
    except OSError as error:
        raise wrong_usage(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise wrong_usage(str(error)) from error
    if refuses(address):
        raise CommandError(
            f"nothing listens on {address}: is the service running? (milepost serve)",
            reason="NOT_LISTENING",
            code="UNAVAILABLE",
            exit_code=ExitCode.UNAVAILABLE,
        )
    async with client:
        try:
            yield client
        except MilepostError as error:
            raise _failure(error, address) from error


def run_call(
    call: Callable[[Milepost], Awaitable[T]], address: str, api_key: str | None, *, insecure: bool
) -> T:
    """Return the result of the call, or raise the error of the service as a `CommandError`."""

    async def run() -> T:
        async with connected(address, api_key, insecure=insecure) as client:
            return await call(client)

    return asyncio.run(run())


def local_port(address: str) -> tuple[str, int] | None:
    """Return host and port of an address of this machine, or None for any other target."""
    from milepost.config import is_loopback, split_address

    host, port = split_address(address)
    plain = is_loopback(address) and port.isascii() and port.isdigit()
    return (host, int(port)) if plain else None


def refuses(address: str) -> bool:
    """Return whether nothing listens on an address of this machine.

    The client itself would retry until its deadline.
    """
    target = local_port(address)
    if target is None:
        return False
    try:
        socket.create_connection(target, timeout=_CONNECT_S).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False  # the client reports it in better words
    return False


def _sentence(error: MilepostError, address: str) -> str:
    """Return the first line of the error, or what it means to a user of the command line."""
    import milepost_client as client

    if isinstance(error, client.Unauthenticated) and error.reason == "UNAUTHENTICATED":
        return (
            "the service does not accept the credential: an API key may be mistyped, expired,"
            " revoked, or of another database (see milepost keys list)"
        )
    if isinstance(error, client.Unavailable) and not error.reason and _speaks_http(address):
        return f"speaks HTTP, not gRPC: the gRPC port is {_GRPC_PORT} by default"
    return str(error).strip().partition("\n")[0]


def _speaks_http(address: str) -> bool:
    """Return whether a port of this machine answers HTTP/1, as the HTTP port of a service does."""
    target = local_port(address)
    if target is None:
        return False
    connection = http.client.HTTPConnection(*target, timeout=_CONNECT_S)
    with contextlib.closing(connection):
        try:
            connection.request("HEAD", "/")
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
    return True


def _failure(error: MilepostError, address: str) -> CommandError:
    import milepost_client as client

    if isinstance(error, client.NotFound):
        exit_code = ExitCode.NOT_FOUND
    elif isinstance(error, client.Unavailable | client.DeadlineExceeded):
        exit_code = ExitCode.UNAVAILABLE
    elif isinstance(error, client.Unauthenticated | client.PermissionDenied):
        exit_code = ExitCode.DENIED
    else:
        exit_code = ExitCode.REFUSED
    code = error.code.name if error.code else "UNKNOWN"
    text = _sentence(error, address) or code
    violations = [{"field": v.field, "problem": v.problem} for v in error.violations]
    return CommandError(
        text
        if error.reason
        else f"{address}: {text}",  # without a reason it is an error of gRPC itself
        reason=error.reason or code,
        code=code,
        exit_code=exit_code,
        **({"metadata": error.metadata} if error.metadata else {}),
        **({"violations": violations} if violations else {}),
    )
