"""``ops``: create, read, list, cancel, release and delete operations."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from milepost.cli.connection import AddressOption, InsecureOption, KeyOption, run_call
from milepost.cli.errors import wrong_usage
from milepost.cli.output import Output, OutputOption, QuietOption, print_json, print_line
from milepost.cli.values import MAX_INT32, duration, json_object, moment
from milepost.domain.operation import Status
from milepost.domain.transitions import CALLBACK_EVENTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from milepost_client import Milepost, Operation

_MAX_PAGE_SIZE: Final = 100

IdArgument = Annotated[
    str,
    typer.Argument(metavar="ID", help="Id of the operation, such as op_0123456789abcdef01234567."),
]
TimeoutOption = Annotated[
    timedelta | None,
    typer.Option(
        parser=duration,
        metavar="DURATION",
        help="Time limit of the wait, such as 30s or 15m; then exit code 4.",
    ),
]
RequestIdOption = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="Id of this call: a repeated call with the same id changes nothing."
    ),
]
RevisionOption = Annotated[
    int | None,
    typer.Option(
        "--expected-revision",
        metavar="NUMBER",
        min=1,
        max=2**63 - 1,
        help="Only if the operation has this revision.",
    ),
]


def create(
    function: Annotated[
        str, typer.Argument(metavar="FUNCTION", help="Function to run, such as video.transcode.")
    ],
    *,
    version: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Version of the function.")
    ] = None,
    metadata: Annotated[
        dict[str, Any] | None,
        typer.Option(
            parser=json_object,
            metavar="JSON",
            help="Your own data: a JSON object, @FILE to read it, or @- for standard input.",
        ),
    ] = None,
    ttl: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            help="Lifetime of the operation, such as 90s or 7d.",
        ),
    ] = None,
    retry_after: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration, metavar="DURATION", help="Suggested pause between two polls."
        ),
    ] = None,
    max_attempts: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=1,
            max=MAX_INT32,
            help="Lost attempts after which the operation fails.",
        ),
    ] = None,
    callback_url: Annotated[
        str | None, typer.Option(metavar="URL", help="URL that receives the webhooks.")
    ] = None,
    callback_event: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EVENT",
            autocompletion=lambda: list(CALLBACK_EVENTS),
            help="Event to send a webhook for, such as operation.failed; can be repeated. By"
            " default every end.",
        ),
    ] = None,
    original_request_id: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Your own id of the request behind the operation."),
    ] = None,
    request_id: RequestIdOption = None,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait for the end; exit code 5 if it is FAILED or CANCELLED."),
    ] = False,
    timeout: TimeoutOption = None,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Create an operation and show it with its id.

    With --wait, the operation is watched until it ends, and shown at its end.
    """
    if timeout is not None and not wait:
        raise wrong_usage("--timeout needs --wait")

    async def call(client: Milepost) -> Operation:
        try:
            return await client.create(
                function,
                version=version,
                metadata=metadata,
                ttl=ttl,
                retry_after=retry_after,
                max_attempts=max_attempts,
                callback_url=callback_url,
                callback_events=callback_event or (),
                original_request_id=original_request_id,
                request_id=request_id,
            )
        except UnicodeError:  # of any argument: reported by the program
            raise
        except (TypeError, ValueError) as error:  # such as a number that JSON cannot represent
            raise wrong_usage(f"--metadata: {error}") from error

    created = run_call(call, address, api_key, insecure=insecure)
    if not wait:
        _show(created, output, quiet=quiet)
        return
    from milepost.cli.outcomes import watch_to_end

    if output is Output.TEXT or quiet:
        print_line(created.id)
    watch_to_end(
        created.id,
        timeout,
        address,
        api_key,
        insecure=insecure,
        output=output,
        quiet=quiet,
        changes=False,
    )


def get(
    id_: IdArgument,
    *,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Show an operation with all its fields."""
    found = run_call(lambda client: client.get(id_), address, api_key, insecure=insecure)
    _show(found, output, quiet=quiet)


def list_(
    *,
    status: Annotated[
        list[Status] | None,
        typer.Option(case_sensitive=False, help="Only operations in this status; can be repeated."),
    ] = None,
    function: Annotated[
        str | None, typer.Option(metavar="FUNCTION", help="Only operations of this function.")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Only operations of this owner; for admins, who see all owners."
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=moment,
            metavar="TIME",
            help="Only operations created then or later: an age such as 2h or 7d, or a time such"
            " as 2026-11-26T15:30Z. UTC, unless it has another offset.",
        ),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(
            parser=moment, metavar="TIME", help="Only operations created before; as --since."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="NUMBER", min=1, help="Number of operations, newest first.")
    ] = 20,
    everything: Annotated[bool, typer.Option("--all", help="List all operations.")] = False,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """List your operations, newest first; an admin lists those of all owners.

    MESSAGE is the last progress message, or the error of a failed operation. Metadata, results
    and all errors are shown by `ops get`.
    """
    from milepost_client import Status as ClientStatus

    async def call(client: Milepost) -> tuple[list[Operation], bool]:
        operations = client.list(
            statuses=[ClientStatus(name) for name in status or ()],
            function=function,
            owner=owner,
            created_from=since,
            created_before=until,
            full=output is Output.TEXT and not quiet,  # the errors are for people
            page_size=_MAX_PAGE_SIZE if everything else min(limit + 1, _MAX_PAGE_SIZE),
        )
        return await _first(operations, None if everything else limit)

    found, more = run_call(call, address, api_key, insecure=insecure)
    _show_list(found, output, more=more, quiet=quiet)


async def _first(
    operations: AsyncIterator[Operation], limit: int | None
) -> tuple[list[Operation], bool]:
    """Return at most `limit` operations, without large fields, and whether there are more."""
    found: list[Operation] = []
    async for operation in operations:
        if len(found) == limit:
            return found, True
        found.append(replace(operation, metadata={}, result=None))
    return found, False


def _show_list(found: list[Operation], output: Output, *, more: bool, quiet: bool) -> None:
    from milepost.cli.display import brief_document, print_operations

    if quiet:
        for operation in found:
            print_line(operation.id)
    elif output is Output.JSON:
        print_json({"operations": [brief_document(item) for item in found], "more": more})
    elif not found:
        print_line("No operations found.")
    else:
        print_operations(found)
        if more:
            print_line("There are more operations: see --limit and --all.")


def cancel(
    id_: IdArgument,
    *,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Reason for people.")] = None,
    expected_revision: RevisionOption = None,
    request_id: RequestIdOption = None,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Cancel an operation that has not ended."""

    async def call(client: Milepost) -> Operation:
        return await client.cancel(
            id_, reason, expected_revision=expected_revision, request_id=request_id
        )

    _show(run_call(call, address, api_key, insecure=insecure), output, quiet=quiet)


def release(
    id_: IdArgument,
    *,
    attempt: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER", min=1, max=MAX_INT32, help="Only if this is still the attempt."
        ),
    ] = None,
    delay: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            help="Time until it can be claimed again, such as 30s; at most 1 h.",
        ),
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Reason for people.")] = None,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Give an operation in progress back to workers, as its owner or as a worker.

    Its present worker must stop: further writes of that attempt are refused.
    """

    async def call(client: Milepost) -> Operation:
        return await client.release(id_, delay=delay, reason=reason, attempt=attempt)

    _show(run_call(call, address, api_key, insecure=insecure), output, quiet=quiet)


def delete(
    id_: IdArgument,
    *,
    expected_revision: RevisionOption = None,
    request_id: RequestIdOption = None,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Delete an operation that has ended, with its result."""

    async def call(client: Milepost) -> None:
        await client.delete(id_, expected_revision=expected_revision, request_id=request_id)

    run_call(call, address, api_key, insecure=insecure)
    if quiet:
        return
    if output is Output.JSON:
        print_json({"id": id_, "deleted": True})
    else:
        print_line(f"{id_} is deleted")


def _show(operation: Operation, output: Output, *, quiet: bool) -> None:
    from milepost.cli.display import document, print_operation

    if quiet:
        print_line(operation.id)
    elif output is Output.JSON:
        print_json(document(operation))
    else:
        print_operation(operation)
