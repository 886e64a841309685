"""``serve``, ``migrate`` and ``cleanup``: commands that run the service or its database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from milepost.cli.errors import CommandError, ExitCode, refused, settings_failures
from milepost.cli.output import Output, OutputOption, QuietOption, print_json, print_line
from milepost.cli.values import quoted

if TYPE_CHECKING:
    from milepost.config import Settings

_REVISION: Final = re.compile(r"\w{1,32}", re.ASCII)


def serve(*, output: OutputOption = Output.TEXT) -> None:
    """Run the service until SIGTERM or Ctrl-C, then let running calls finish.

    Log lines go to standard error: as text on a terminal, as JSON elsewhere and with
    `--output json`.
    """
    settings = load_settings()
    require_free_ports(settings)
    from milepost import config, main, telemetry

    as_json = output is Output.JSON or _logs_as_json(settings)
    telemetry.configure_logs(level=settings.log_level, as_json=as_json)
    if settings.tls_cert_file is None and not config.is_loopback(settings.listen):
        telemetry.log.warning(
            "gRPC WITHOUT TLS ON AN ADDRESS THAT OTHERS CAN REACH: API keys travel in the clear;"
            " a proxy in front must do TLS",
            listen=settings.listen,
        )
    for line in config.warnings():
        telemetry.log.warning("questionable setting", problem=line)
    run = asyncio.run
    with contextlib.suppress(ImportError):
        from uvloop import run
    with settings_failures(), telemetry.logged_library_output():
        run(main.serve(settings))


def _logs_as_json(settings: Settings) -> bool:
    if settings.log_format == "auto":
        return not sys.stderr.isatty()
    return settings.log_format == "json"


def require_free_ports(settings: Settings) -> None:
    """Fail if an address is not free, and name it. gRPC would report it later and less clearly."""
    for variable, address in (
        ("MILEPOST_LISTEN", settings.listen),
        ("MILEPOST_HTTP_LISTEN", settings.http_listen),
    ):
        if address and (problem := _bind_problem(address)):
            raise refused(
                f"cannot listen on {address} ({variable}): {problem}", reason="CANNOT_LISTEN"
            )


def _bind_problem(address: str) -> str | None:
    """Return why `address` cannot be bound now, or None if it can."""
    from milepost.config import split_address

    host, port = split_address(address)
    try:
        family, _, _, _, target = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        socket.create_server(target[:2], family=family).close()
    except socket.gaierror as error:
        return str(error.strerror).lower()
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else str(error)
    return None


def _revision(text: str) -> str:
    if _REVISION.fullmatch(text) is None:
        raise typer.BadParameter(f"{quoted(text)} must be a revision such as 0001, head or base")
    return text


def migrate(
    *,
    to: Annotated[
        str,
        typer.Option(
            parser=_revision,
            metavar="REVISION",
            help="A revision such as 0001, `head`, or `base` for no tables.",
        ),
    ] = "head",
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Migrate the schema of the database to the newest or another revision."""
    url = database_url()
    from milepost import main

    with database_failures():
        revision = main.migrate(url, to)
    if quiet:
        return
    if output is Output.JSON:
        print_json({"revision": revision})
    else:
        print_line(f"the schema is at {revision}" if revision else "the schema is removed")


def cleanup(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the operations and change nothing.")
    ] = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Purge expired operations in one pass, as every replica does periodically.

    Purges expired operations that are pending or terminal. Fails those that are being processed
    with the error code EXPIRED. On PostgreSQL it makes the partitions of
    the next events, and drops old ones. Works on the database, not on the service.
    """
    settings = load_settings()
    from milepost import main, telemetry
    from milepost.domain.sweep import EXPIRE, PURGE

    telemetry.configure_logs(level="warning", as_json=output is Output.JSON)
    with database_failures():
        swept = main.clean_up(settings, dry_run=dry_run)
    purged, failed = swept.counts[PURGE], swept.counts[EXPIRE]
    if quiet:
        return
    if output is Output.JSON:
        print_json(
            {
                "dry_run": dry_run,
                "purged_count": purged,
                "failed_count": failed,
                "more_remaining": swept.more,
            }
        )
        return
    would = "would be " if dry_run else ""
    more = "; more remain: run it again" if swept.more else ""
    print_line(f"{purged} {would}purged, {failed} {would}failed with EXPIRED{more}")


def load_settings() -> Settings:
    """Return the settings, or fail with every problem at once."""
    from milepost import config

    with settings_failures():
        return config.load()


def database_url() -> str:
    """Return the URL of the database."""
    return load_settings().database_url.get_secret_value()


@contextlib.contextmanager
def database_failures() -> Iterator[None]:
    """Turn an error of the database into a `CommandError`."""
    from milepost import main

    try:
        yield
    except main.DatabaseError as error:
        raise CommandError(
            str(error).partition("\n")[0],
            reason="STORE_UNAVAILABLE" if error.away else "STORE_REFUSED",
            code="UNAVAILABLE" if error.away else "FAILED_PRECONDITION",
            exit_code=ExitCode.UNAVAILABLE if error.away else ExitCode.REFUSED,
        ) from error
