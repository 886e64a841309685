"""``ops watch`` and ``ops result``: the end of an operation, and its result."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from milepost.cli.connection import AddressOption, InsecureOption, KeyOption, run_call
from milepost.cli.errors import CommandError, wrong_usage
from milepost.cli.operations import IdArgument, TimeoutOption
from milepost.cli.output import Output, OutputOption, QuietOption, print_json

if TYPE_CHECKING:
    from milepost_client import Milepost, Operation


def watch(
    id_: IdArgument,
    *,
    timeout: TimeoutOption = None,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Watch an operation until it ends; exit code 5 if it ends FAILED or CANCELLED.

    With `--output json`, each change is one document on a line. The last one is the end, or the
    state when the timeout passed.
    """
    watch_to_end(
        id_, timeout, address, api_key, insecure=insecure, output=output, quiet=quiet, changes=True
    )


def result(
    id_: IdArgument,
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end of the operation.")
    ] = False,
    timeout: TimeoutOption = None,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,  # noqa: ARG001 - the format of the error, see `Program`
    quiet: QuietOption = False,
) -> None:
    """Print the result of a completed operation as JSON.

    Exit code 5 if the operation ended FAILED or CANCELLED, and 4 if it has not ended: then
    standard output is empty, and the error has the status. A result that is not JSON is printed
    with its type and in base64. With --quiet, nothing is printed.
    """
    from milepost.cli.display import payload_document
    from milepost.cli.watch import require_completed

    if timeout is not None and not wait:
        raise wrong_usage("--timeout needs --wait")

    async def call(client: Milepost) -> Operation:
        return await (client.wait(id_, timeout) if wait else client.get(id_))

    found = run_call(call, address, api_key, insecure=insecure)
    require_completed(found, timeout)
    if not quiet:
        print_json(payload_document(found.result))


def watch_to_end(
    id_: str,
    timeout: timedelta | None,
    address: str,
    api_key: str | None,
    *,
    insecure: bool,
    output: Output,
    quiet: bool,
    changes: bool,
) -> None:
    """Watch an operation, show its end, and fail unless that is COMPLETED.

    With `changes`, JSON has a document for every change, not for the end only.
    """
    from milepost.cli.display import live, print_end, show_json
    from milepost.cli.watch import follow, require_completed

    as_text = output is Output.TEXT and not quiet
    as_json = output is Output.JSON and not quiet
    if not as_text:  # then only the error at the end may be on standard error
        logging.getLogger("milepost_client").addHandler(logging.NullHandler())
    silent = nullcontext(lambda _: None)
    display = live() if as_text else nullcontext(show_json) if as_json and changes else silent
    try:
        operation = run_call(
            lambda client: follow(client, id_, display, within=timeout),
            address,
            api_key,
            insecure=insecure,
        )
    except CommandError as error:
        error.facts["operation_id"] = id_  # of a create, it has not been written yet
        raise
    if as_text:
        print_end(operation)
    elif as_json and not changes:
        show_json(operation)
    require_completed(operation, timeout)
