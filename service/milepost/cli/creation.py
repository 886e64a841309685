"""``ops create``: create an operation, and wait for its end if asked to."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from milepost.cli.connection import AddressOption, InsecureOption, KeyOption, run_call
from milepost.cli.errors import wrong_usage
from milepost.cli.operations import RequestIdOption, TimeoutOption, show
from milepost.cli.output import Output, OutputOption, QuietOption, print_line
from milepost.cli.values import MAX_INT32, MAX_PRIORITY, duration, future, json_object
from milepost.domain.transitions import CALLBACK_EVENTS

if TYPE_CHECKING:
    from milepost_client import Milepost, Operation


class IfTaken(StrEnum):
    """Outcome of a create whose unique key an active operation has."""

    JOIN = "join"
    REFUSE = "refuse"


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
            help="Failed attempts after which the operation fails.",
        ),
    ] = None,
    initial_backoff: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            help="Pause after the first failed attempt; by default 1s.",
        ),
    ] = None,
    backoff_multiplier: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", min=1, help="Factor between two such pauses; by default 2."),
    ] = None,
    max_backoff: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration, metavar="DURATION", help="Longest such pause; by default 5m."
        ),
    ] = None,
    queue_timeout: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            help="Time after which it fails if no worker has claimed it.",
        ),
    ] = None,
    run_timeout: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            help="Time after which one attempt has failed.",
        ),
    ] = None,
    schedule: Annotated[
        datetime | None,
        typer.Option(
            parser=future,
            metavar="TIME",
            help="Not claimable before: a duration from now such as 2h, or a time such as"
            " 2026-11-26T15:30Z. UTC, unless it has another offset.",
        ),
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=0,
            max=MAX_PRIORITY,
            help="0 to 9: your operations with a higher one are claimed first; by default 5.",
        ),
    ] = None,
    unique_key: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Name of the work: only one of your active operations has it."
        ),
    ] = None,
    if_taken: Annotated[
        IfTaken | None,
        typer.Option(
            help="What to do if an active operation has the unique key: show that one, the default,"
            " or fail.",
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
    if if_taken is not None and unique_key is None:
        raise wrong_usage("--if-taken needs --unique-key")

    async def call(client: Milepost) -> Operation:
        try:
            return await client.create(
                function,
                version=version,
                metadata=metadata,
                ttl=ttl,
                retry_after=retry_after,
                schedule_time=schedule,
                priority=priority,
                unique_key=unique_key,
                unique_key_policy=None if if_taken is None else if_taken.value,
                max_attempts=max_attempts,
                initial_backoff=initial_backoff,
                backoff_multiplier=backoff_multiplier,
                max_backoff=max_backoff,
                queue_timeout=queue_timeout,
                run_timeout=run_timeout,
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
        show(created, output, quiet=quiet)
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
