"""``ops events``: the history of an operation."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from milepost.cli.connection import AddressOption, InsecureOption, KeyOption, run_call
from milepost.cli.operations import IdArgument
from milepost.cli.output import (
    Output,
    OutputOption,
    QuietOption,
    one_line,
    print_json,
    print_table,
    time_json,
    time_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost_client import Milepost, Operation, OperationEvent


def events(
    id_: IdArgument,
    *,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Show the history of an operation, oldest first: every change of its status, and why.

    WHY is the reason of the change, and the errors of the attempt that it ended. Progress is not
    part of the history.
    """

    async def call(client: Milepost) -> list[OperationEvent]:
        return [event async for event in client.events(id_)]

    found = run_call(call, address, api_key, insecure=insecure)
    if quiet:
        return
    if output is Output.JSON:
        print_json({"events": [event_document(event) for event in found]})
    else:
        print_events(found)


def event_document(event: OperationEvent) -> dict[str, Any]:
    """Return the event for programs."""
    return {**asdict(event), "time": time_json(event.time)}


def print_events(events: Sequence[OperationEvent]) -> None:
    """Write one line for each event for people."""
    print_table(
        ("REVISION", "TIME", "TRANSITION", "ATTEMPT", "WORKER", "ACTOR", "WHY"),
        [
            (
                str(event.revision),
                time_text(event.time),
                event.transition,
                str(event.attempt or ""),
                event.worker or "",
                event.actor,
                why(event),
            )
            for event in events
        ],
        wrapped="WHY",
        optional=("REVISION", "ACTOR", "WORKER"),
    )


def why(event: OperationEvent) -> str:
    """Return the errors and the reason of an event on one line; the reason once."""
    texts = [f"{error.code}: {error.message}" for error in event.errors]
    if event.reason and all(error.message != event.reason for error in event.errors):
        texts.append(event.reason)
    return one_line("; ".join(texts))


async def last_failure(client: Milepost, operation: Operation) -> OperationEvent | None:
    """Return the event of the last failed attempt.

    None without a failed attempt, and if the caller may not read the history, as a worker.
    """
    from milepost_client import NotFound, PermissionDenied

    if not operation.failed_attempts:
        return None
    try:
        failures = [event async for event in client.events(operation.id) if event.errors]
    except (NotFound, PermissionDenied):
        return None
    return failures[-1] if failures else None
