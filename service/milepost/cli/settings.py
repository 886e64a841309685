"""``check-config`` and ``version``: the effective settings and the release."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from milepost import __version__
from milepost.cli.errors import wrong_usage
from milepost.cli.output import (
    Output,
    OutputOption,
    QuietOption,
    print_json,
    print_line,
    print_table,
    warn,
)
from milepost.cli.service import database_failures

if TYPE_CHECKING:
    from milepost.config import Settings


def version(*, output: OutputOption = Output.TEXT) -> None:
    """Show the version of Milepost."""
    if output is Output.JSON:
        print_json({"version": __version__, "python": platform.python_version()})
    else:
        print_line(f"milepost {__version__} (Python {platform.python_version()})")


def print_version(wanted: bool) -> None:  # noqa: FBT001 - a callback of an option
    """Show the version of Milepost and exit, if it is wanted."""
    if wanted:
        version(output=Output.TEXT)
        raise typer.Exit


def check_config(
    *,
    connect: Annotated[
        bool,
        typer.Option(
            "--connect",
            help="Connect to the database and to Redis, and fail if the service could not use one.",
        ),
    ] = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Show every setting with its value and source, and every problem at once.

    The standard variables of OpenTelemetry that are set, and the variables of the command line as
    a client, follow those of the service. Connects to a PostgreSQL database, fails if it does not
    meet the requirements, and warns if it does not answer or has too few connections for the
    processes. With `--connect` that it does not answer is a failure, and the schema, the file of
    the embedded store, and Redis are checked as well.
    """
    from milepost import config

    settings, problems = None, []
    try:
        settings = config.load()
    except config.SettingsError as error:
        problems = error.problems
    entries = [*config.entries(settings), *config.otel_entries(), *config.client_entries()]
    warnings = config.warnings()
    if output is Output.JSON and not quiet:
        listed = [asdict(entry) for entry in entries]
        print_json({"settings": listed, "warnings": warnings, "problems": problems})
    else:
        if not quiet:
            rows = [(e.name, _text(e.value), e.source, e.description) for e in entries]
            print_table(("NAME", "VALUE", "FROM", "MEANING"), rows, wrapped="MEANING")
        for line in warnings:
            warn(line)
    # Without a connection to make, the libraries for it are not imported.
    if settings is not None and (connect or not settings.embedded):
        _check_connections(settings, connect=connect)
    if problems:
        raise wrong_usage("; ".join(problems), reason="INVALID_SETTINGS", problems=problems)


def _check_connections(settings: Settings, *, connect: bool) -> None:
    """Fail if Milepost could not use what it connects to; see `main.checks`."""
    from milepost.main.checks import check

    with database_failures():
        for line in check(settings, connect=connect):
            warn(line)


def _text(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
