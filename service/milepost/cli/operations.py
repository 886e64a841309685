"""``ops``: read, list, cancel, release and delete operations."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from milepost.cli.connection import AddressOption, InsecureOption, KeyOption, run_call
from milepost.cli.output import Output, OutputOption, QuietOption, print_json, print_line
from milepost.cli.values import MAX_INT32, duration, moment
from milepost.domain.operation import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from milepost_client import Milepost, Operation, OperationEvent

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


def get(
    id_: IdArgument,
    *,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Show an operation with all its fields, and the errors of its last failed attempt."""
    from milepost.cli.history import last_failure

    async def call(client: Milepost) -> tuple[Operation, OperationEvent | None]:
        found = await client.get(id_)
        needs_failure = output is Output.TEXT and not quiet and not found.status.is_terminal
        return found, await last_failure(client, found) if needs_failure else None

    found, failure = run_call(call, address, api_key, insecure=insecure)
    show(found, output, quiet=quiet, failure=failure)


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
    everything: Annotated[
        bool, typer.Option("--all", help="List all operations, as fast as the rate limit allows.")
    ] = False,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """List your operations, newest first; an admin lists those of all owners.

    NEXT is the next step, or the time of the next attempt. MESSAGE is the last progress message, or
    the error of a failed operation. Metadata, results and all errors are shown by `ops get`, and
    the errors of earlier attempts by `ops events`.
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
    grace: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            help="Time for its worker to end it, such as 30s; at most 1 h. By default none.",
        ),
    ] = None,
    expected_revision: RevisionOption = None,
    request_id: RequestIdOption = None,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Cancel an operation that has not ended, at once or with a grace.

    With --grace, an operation in progress stays so: its worker is notified, and acknowledges the
    cancel, completes or fails the operation. At the end of the grace it is cancelled.
    """

    async def call(client: Milepost) -> Operation:
        return await client.cancel(
            id_,
            reason,
            grace=grace,
            expected_revision=expected_revision,
            request_id=request_id,
        )

    show(run_call(call, address, api_key, insecure=insecure), output, quiet=quiet)


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

    show(run_call(call, address, api_key, insecure=insecure), output, quiet=quiet)


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


def show(
    operation: Operation,
    output: Output,
    *,
    quiet: bool,
    failure: OperationEvent | None = None,
) -> None:
    """Write one operation: its id, a JSON document, or all its fields for people.

    `failure` is the event of its last failed attempt, for people.
    """
    from milepost.cli.display import document, print_operation

    if quiet:
        print_line(operation.id)
    elif output is Output.JSON:
        print_json(document(operation))
    else:
        print_operation(operation, failure)
