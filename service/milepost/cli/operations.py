"""``ops``: one command for each call of a caller, and the release of an operation."""

from __future__ import annotations

import json
import re
import sys
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from milepost.cli.connection import (
    DEFAULT_ADDRESS,
    AddressOption,
    InsecureOption,
    KeyOption,
    run_call,
)
from milepost.cli.errors import wrong_usage
from milepost.cli.output import Output, OutputOption, print_json, print_line
from milepost.domain.operation import Status

if TYPE_CHECKING:
    from milepost_client import Milepost, Operation

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd]?)")
_MAX_PAGE_SIZE: Final = 100

app = typer.Typer(
    help="Create, read, list, watch, cancel and release operations. Needs an API key."
)


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} must be like 90, 90s, 15m, 24h or 7d")
    return timedelta(seconds=float(found[1]) * _UNITS[found[2]])


def _metadata(text: str) -> dict[str, Any]:
    source = ""
    if text.startswith("@"):
        source = text[1:]
        try:
            text = sys.stdin.read() if text == "@-" else Path(text[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise typer.BadParameter(f"{source}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise typer.BadParameter(f"{source} is not UTF-8 text") from error
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{source} is not JSON: {error}".strip()) from error
    if not isinstance(metadata, dict):
        example = '{"source": "in.mov"}'
        raise typer.BadParameter(f"{source} must be a JSON object, such as {example}".strip())
    return metadata


IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="Such as op_0123456789abcdef01234567.")
]


@app.command()
def create(
    function: Annotated[
        str, typer.Argument(metavar="FUNCTION", help="Function to run, such as video.transcode.")
    ],
    *,
    version: Annotated[str | None, typer.Option(help="Version of the function.")] = None,
    metadata: Annotated[
        dict[str, Any] | None,
        typer.Option(
            parser=_metadata,
            metavar="JSON",
            help="Your own data: a JSON object, @FILE to read it, or @- for standard input.",
        ),
    ] = None,
    ttl: Annotated[
        timedelta | None,
        typer.Option(
            parser=_duration,
            metavar="DURATION",
            help="Lifetime of the operation, such as 90s or 7d.",
        ),
    ] = None,
    retry_after: Annotated[
        timedelta | None,
        typer.Option(
            parser=_duration, metavar="DURATION", help="Suggested pause between two polls."
        ),
    ] = None,
    request_id: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Id of this call: a retry returns the same operation."),
    ] = None,
    address: AddressOption = DEFAULT_ADDRESS,
    api_key: KeyOption = None,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Create an operation and show it with its id."""

    async def call(client: Milepost) -> Operation:
        try:
            return await client.create(
                function,
                version=version,
                metadata=metadata,
                ttl=ttl,
                retry_after=retry_after,
                request_id=request_id,
            )
        except (TypeError, ValueError) as error:  # such as a number that JSON cannot represent
            raise wrong_usage(f"--metadata: {error}") from error

    _show(run_call(call, address, api_key, insecure=insecure), output)


@app.command()
def get(
    id_: IdArgument,
    *,
    address: AddressOption = DEFAULT_ADDRESS,
    api_key: KeyOption = None,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show an operation."""
    _show(run_call(lambda client: client.get(id_), address, api_key, insecure=insecure), output)


@app.command("list")
def list_(
    *,
    status: Annotated[
        list[Status] | None,
        typer.Option(case_sensitive=False, help="Only operations in this status; can be repeated."),
    ] = None,
    function: Annotated[str | None, typer.Option(help="Only operations of this function.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of operations, newest first.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="List all operations.")] = False,
    address: AddressOption = DEFAULT_ADDRESS,
    api_key: KeyOption = None,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """List your operations, newest first; an admin lists those of all owners.

    The list has no metadata, results and errors: `ops get` shows them.
    """
    from milepost.cli.display import brief_document, print_operations
    from milepost_client import Status as ClientStatus

    async def call(client: Milepost) -> tuple[list[Operation], bool]:
        found: list[Operation] = []
        async for operation in client.list(
            statuses=[ClientStatus(name) for name in status or ()],
            function=function,
            page_size=_MAX_PAGE_SIZE if everything else min(limit + 1, _MAX_PAGE_SIZE),
        ):
            if len(found) == limit and not everything:
                return found, True
            found.append(operation)
        return found, False

    found, more = run_call(call, address, api_key, insecure=insecure)
    if output is Output.JSON:
        print_json({"operations": [brief_document(item) for item in found], "more": more})
    elif not found:
        print_line("No operations found.")
    else:
        print_operations(found)
        if more:
            print_line("There are more operations: see --limit and --all.")


@app.command()
def watch(
    id_: IdArgument,
    *,
    timeout: Annotated[
        timedelta | None,
        typer.Option(
            parser=_duration, metavar="DURATION", help="Time limit, such as 30s; then exit code 4."
        ),
    ] = None,
    address: AddressOption = DEFAULT_ADDRESS,
    api_key: KeyOption = None,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Watch an operation until it ends; exit code 5 if it ends FAILED or CANCELLED."""
    from milepost.cli.display import live, print_end, show_json
    from milepost.cli.watch import follow, require_completed

    display = live() if output is Output.TEXT else nullcontext(show_json)
    operation = run_call(
        lambda client: follow(client, id_, display, within=timeout),
        address,
        api_key,
        insecure=insecure,
    )
    if output is Output.TEXT:
        print_end(operation)
    require_completed(operation, timeout)


@app.command()
def cancel(
    id_: IdArgument,
    *,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Reason for people.")] = None,
    address: AddressOption = DEFAULT_ADDRESS,
    api_key: KeyOption = None,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Cancel an operation that has not ended."""
    _show(
        run_call(lambda client: client.cancel(id_, reason), address, api_key, insecure=insecure),
        output,
    )


@app.command()
def release(
    id_: IdArgument,
    *,
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Only if this is still the attempt.")
    ] = None,
    delay: Annotated[
        timedelta | None,
        typer.Option(
            parser=_duration,
            metavar="DURATION",
            help="Time until it can be claimed again, such as 30s; at most 1 h.",
        ),
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Reason for people.")] = None,
    address: AddressOption = DEFAULT_ADDRESS,
    api_key: KeyOption = None,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Give an operation in progress back to workers, as its owner or as a worker.

    Its present worker must stop: further writes of that attempt are refused.
    """

    async def call(client: Milepost) -> Operation:
        return await client.release(id_, delay=delay, reason=reason, attempt=attempt)

    _show(run_call(call, address, api_key, insecure=insecure), output)


def _show(operation: Operation, output: Output) -> None:
    from milepost.cli.display import document, print_operation

    if output is Output.JSON:
        print_json(document(operation))
    else:
        print_operation(operation)
