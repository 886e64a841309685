"""``serve``, ``migrate`` and ``cleanup``: commands that run the service or its database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from milepost.cli.errors import CommandError, ExitCode, refused, settings_failures, wrong_usage
from milepost.cli.output import Output, OutputOption, QuietOption, print_json, print_line
from milepost.cli.values import quoted

if TYPE_CHECKING:
    from milepost.config import Settings
    from milepost.supervisor import Assignment

_REVISION: Final = re.compile(r"\w{1,32}", re.ASCII)


def _assignment(text: str) -> Assignment:
    from milepost.supervisor import Assignment

    try:
        return Assignment.read(text)
    except ValueError:
        raise typer.BadParameter("is for the processes that a supervisor starts") from None


def serve(
    *,
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of processes that serve the gRPC port together, on PostgreSQL."
            " [default: MILEPOST_PROCESSES, or 1]",
        ),
    ] = None,
    replica: Annotated[str | None, typer.Option(parser=_assignment, hidden=True)] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Run the service until SIGTERM or Ctrl-C, then let running calls finish.

    With several processes, SIGHUP restarts them one by one. Log lines go to standard error: as text
    on a terminal, as JSON elsewhere and with `--output json`.
    """
    if replica is not None:
        _serve_as_replica(cast("Assignment", replica), processes, output)
        return
    settings = load_settings(processes=processes)
    require_free_ports(settings)
    _open_log(settings, output)
    _log_warnings(settings)
    if settings.processes == 1:
        _serve(settings)
    else:
        _supervise(settings, output)


def _serve_as_replica(replica: Assignment, processes: int | None, output: Output) -> None:
    """Serve as one of several processes: ports and warnings are the part of the supervisor."""
    settings = load_settings(
        processes=processes, listen=replica.listen, http_listen=replica.http_listen
    )
    _open_log(settings, output, process=replica.number)
    _serve(settings, replica)


def _serve(settings: Settings, replica: Assignment | None = None) -> None:
    from milepost import telemetry
    from milepost.main.serving import serve

    run = asyncio.run
    with contextlib.suppress(ImportError):
        from uvloop import run
    with settings_failures(), telemetry.logged_library_output():
        run(serve(settings, replica))


def _supervise(settings: Settings, output: Output) -> None:
    from milepost import supervisor, telemetry

    arguments = ["--processes", str(settings.processes), "--output", output.value]
    with telemetry.logged_library_output():
        code = asyncio.run(supervisor.supervise(settings, arguments))
    if code:
        raise typer.Exit(code)


def _open_log(settings: Settings, output: Output, *, process: int | None = None) -> None:
    from milepost import telemetry

    as_json = output is Output.JSON or _logs_as_json(settings)
    telemetry.configure_logs(level=settings.log_level, as_json=as_json, process=process)


def _log_warnings(settings: Settings) -> None:
    from milepost import config, telemetry

    if settings.tls_cert_file is None and not config.is_loopback(settings.listen):
        telemetry.log.warning(
            "gRPC WITHOUT TLS ON AN ADDRESS THAT OTHERS CAN REACH: API keys travel in the clear;"
            " a proxy in front must do TLS",
            listen=settings.listen,
        )
    if settings.allow_data_loss and not settings.embedded:
        telemetry.log.warning(
            "ACKNOWLEDGED CHANGES MAY BE LOST IN A CRASH OF POSTGRESQL: MILEPOST_ALLOW_DATA_LOSS"
            " accepts fsync, full_page_writes and synchronous_commit off"
        )
    for line in config.warnings():
        telemetry.log.warning("questionable setting", problem=line)


def _logs_as_json(settings: Settings) -> bool:
    if settings.log_format == "auto":
        return not sys.stderr.isatty()
    return settings.log_format == "json"


def require_free_ports(settings: Settings) -> None:
    """Fail if an address is not free, and name it. gRPC would report it later and less clearly."""
    for variable, address in (
        ("MILEPOST_LISTEN", settings.listen),
        ("MILEPOST_HTTP_LISTEN", settings.http_listen),
        ("MILEPOST_PROBES_LISTEN", settings.probes_listen),
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
    remove_everything: Annotated[
        bool, typer.Option("--remove-everything", help="Confirm `--to base`.")
    ] = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Migrate the schema of the database to the newest or another revision.

    Forwards beside running services; backwards only after the end of all of them.
    """
    if to == "base" and not remove_everything:
        raise wrong_usage(
            "base removes every table with its content: to do that, add --remove-everything",
            reason="CONFIRMATION_NEEDED",
        )
    settings = settings_without_ports()
    from milepost.main import migration

    with database_failures():
        revision = migration.migrate(
            settings.database_url.get_secret_value(),
            to,
            allow_data_loss=settings.allow_data_loss,
        )
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
    settings = settings_without_ports()
    from milepost import telemetry
    from milepost.domain.sweep import EXPIRE, PURGE
    from milepost.main.cleanup import clean_up

    telemetry.configure_logs(level="warning", as_json=output is Output.JSON)
    with database_failures():
        swept = clean_up(settings, dry_run=dry_run)
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


def load_settings(**overrides: Any) -> Settings:
    """Return the settings, or fail with every problem at once. `overrides` win over the others."""
    from milepost import config

    with settings_failures():
        return config.load(**overrides)


def settings_without_ports() -> Settings:
    """Return the settings for a command that opens no port, which needs no consent to open it."""
    return load_settings(allow_plaintext=True)


def database_url() -> str:
    """Return the URL of the database."""
    return settings_without_ports().database_url.get_secret_value()


@contextlib.contextmanager
def database_failures() -> Iterator[None]:
    """Turn an error of the database into a `CommandError`."""
    from milepost.main.database import DatabaseError

    try:
        yield
    except DatabaseError as error:
        raise CommandError(
            str(error).partition("\n")[0],
            reason="STORE_UNAVAILABLE" if error.away else "STORE_REFUSED",
            code="UNAVAILABLE" if error.away else "FAILED_PRECONDITION",
            exit_code=ExitCode.UNAVAILABLE if error.away else ExitCode.REFUSED,
        ) from error
