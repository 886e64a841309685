"""Output of operations: text for people, JSON for programs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.any_pb2 import Any as Packed

from milepost.cli.history import why
from milepost.cli.output import (
    age_text,
    console,
    one_line,
    print_facts,
    print_json,
    print_line,
    print_table,
    time_json,
    time_text,
)
from milepost_client import Operation, OperationEvent, RetryPolicy

_LEFT_OUT: Final = ("metadata", "result", "errors", "checkpoint")
"""Fields that lists leave out."""
_LINE: Final = 60
"""Characters up to which JSON stays on one line."""
_COLOURS: Final = {"COMPLETED": "green", "FAILED": "red", "CANCELLED": "yellow"}

Show = Callable[[Operation], None]


def document(operation: Operation) -> dict[str, Any]:
    """Return the operation for programs: times in RFC 3339, durations in seconds."""
    members: dict[str, Any] = {}
    for field in fields(operation):
        value = getattr(operation, field.name)
        if isinstance(value, timedelta):
            members[f"{field.name}_seconds"] = value.total_seconds()
        elif isinstance(value, datetime):
            members[field.name] = time_json(value)
        else:
            members[field.name] = value
    members["retry_policy"] = _policy_document(operation.retry_policy)
    members["checkpoint"] = payload_document(operation.checkpoint)
    members["result"] = payload_document(operation.result)
    members["errors"] = [asdict(error) for error in operation.errors]
    return members


def brief_document(operation: Operation) -> dict[str, Any]:
    """Return the operation for programs without the fields that a list leaves out."""
    return {name: v for name, v in document(operation).items() if name not in _LEFT_OUT}


def _policy_document(policy: RetryPolicy) -> dict[str, Any]:
    return {
        "initial_backoff_seconds": policy.initial_backoff.total_seconds(),
        "backoff_multiplier": policy.backoff_multiplier,
        "max_backoff_seconds": policy.max_backoff.total_seconds(),
    }


def payload_document(payload: Any) -> Any:
    """Return a result or checkpoint for programs; what is not JSON with its type, in base64."""
    if isinstance(payload, Packed):
        return {"@type": payload.type_url, "value": base64.b64encode(payload.value).decode()}
    return payload


def print_operation(operation: Operation, failure: OperationEvent | None = None) -> None:
    """Write every field of the operation for people, and its last failed attempt."""
    version = f" {operation.version}" if operation.version else ""
    print_facts(
        [
            ("id", operation.id),
            ("function", f"{operation.function}{version}"),
            ("status", f"{operation.status} {_percent(operation)}".rstrip()),
            ("message", operation.progress_message or ""),
            ("owner", operation.owner),
            ("worker", operation.worker or ""),
            ("attempt", str(operation.attempt)),
            ("failed attempts", f"{operation.failed_attempts} of {operation.max_attempts}"),
            ("last failure", "" if failure is None else why(failure)),
            ("checkpoint", _json_or_empty(payload_document(operation.checkpoint))),
            ("revision", str(operation.revision)),
            *((text, time_text(getattr(operation, name))) for name, text in _TIMES.items()),
            ("cancel reason", operation.cancel_reason or ""),
            ("next", _next(operation)),
            *_plan(operation),
            ("request", operation.original_request_id or ""),
            ("callback", operation.callback_url or ""),
            ("poll after", _seconds(operation.retry_after)),
            ("metadata", _json(operation.metadata) if operation.metadata else ""),
            *_end(operation),
        ]
    )


_TIMES: Final = {
    "create_time": "created",
    "schedule_time": "scheduled",
    "next_attempt_time": "next attempt",
    "start_time": "started",
    "complete_time": "ended",
    "cancel_request_time": "cancel requested",
    "cancel_delivered_time": "cancel delivered",
    "cancel_expire_time": "grace until",
    "cancel_time": "cancelled",
    "expire_time": "kept until",
}


def _plan(operation: Operation) -> list[tuple[str, str]]:
    """Return when and how often the operation is tried, as its caller chose."""
    policy = operation.retry_policy
    pauses = f"{_seconds(policy.initial_backoff)}, times {policy.backoff_multiplier:g}"
    return [
        ("priority", str(operation.priority)),
        ("unique key", operation.unique_key or ""),
        ("joined", "the active operation with this unique key" if operation.joined else ""),
        ("backoff", f"{pauses}, at most {_seconds(policy.max_backoff)}"),
        ("queue timeout", _seconds(operation.queue_timeout)),
        ("run timeout", _seconds(operation.run_timeout)),
    ]


def _seconds(duration: timedelta | None) -> str:
    return "" if duration is None else f"{duration.total_seconds():g} s"


def print_operations(operations: Sequence[Operation]) -> None:
    """Write one line for each operation for people; with the owner if there are several."""
    headings = list(_COLUMNS)
    rows = [[column(operation) for column in _COLUMNS.values()] for operation in operations]
    useful = {
        "ATTEMPT": any(o.failed_attempts or o.attempt > 1 for o in operations),
        "OWNER": len({o.owner for o in operations}) > 1,
        "MESSAGE": any(row[-1] for row in rows),
    }
    shown = [n for n, name in enumerate(headings) if useful.get(name, True)]
    print_table(
        [headings[n] for n in shown],
        [[row[n] for n in shown] for row in rows],
        wrapped="MESSAGE",
        optional=[name for name in _OPTIONAL if headings.index(name) in shown],
    )


_OPTIONAL: Final = ("CREATED", "MESSAGE", "ATTEMPT", "DONE", "NEXT", "OWNER")
"""Columns that a narrow terminal has no place for, the first to go first."""


def _message(operation: Operation) -> str:
    """Return the first error, or the last progress message, on one line."""
    for error in operation.errors:
        return one_line(f"{error.code}: {error.message}")
    return one_line(operation.progress_message or "")


def _attempt(operation: Operation) -> str:
    """Return the number of the attempt, and how many have failed."""
    failed = f", {operation.failed_attempts} failed" if operation.failed_attempts else ""
    return f"{operation.attempt}{failed}"


def _next(operation: Operation) -> str:
    """Return the next step with the time left, or the time since it is late."""
    if operation.next_attempt_time is not None:
        return f"attempt {operation.attempt + 1} {_left(operation.next_attempt_time)}"
    if operation.cancel_expire_time is not None:
        return f"cancel {_left(operation.cancel_expire_time)}"
    if operation.next_step is None or operation.next_step_deadline is None:
        return ""
    return f"{operation.next_step.lower()} {_left(operation.next_step_deadline, 'within')}"


def _left(time: datetime, word: str = "in") -> str:
    """Return the time that is left, after a word, or by how much it is late."""
    left = (time - datetime.now(UTC)).total_seconds()
    size, unit = next(((s, u) for s, u in _UNITS if abs(left) >= s), _UNITS[-1])
    return f"{word} {left / size:.0f} {unit}" if left >= 0 else f"{-left / size:.0f} {unit} LATE"


_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def _percent(operation: Operation) -> str:
    return "" if operation.progress is None else f"{operation.progress:.0%}"


_COLUMNS: Final[dict[str, Callable[[Operation], str]]] = {
    "ID": lambda o: o.id,
    "STATUS": lambda o: o.status,
    "DONE": _percent,
    "ATTEMPT": _attempt,
    "NEXT": _next,
    "CREATED": lambda o: age_text(o.create_time),
    "OWNER": lambda o: o.owner,
    "FUNCTION": lambda o: o.function,
    "MESSAGE": _message,
}
"""The columns of a list, in their order."""


def print_end(operation: Operation) -> None:
    """Write the final status of the operation for people."""
    print_facts([("status", operation.status), *_end(operation)])


def _end(operation: Operation) -> list[tuple[str, str]]:
    errors = [("error", f"{error.code}: {error.message}") for error in operation.errors]
    return [*errors, ("result", _json_or_empty(payload_document(operation.result)))]


def _json_or_empty(value: Any) -> str:
    return "" if value is None else _json(value)


def _json(value: Any) -> str:
    line = json.dumps(value, ensure_ascii=False)
    return line if len(line) <= _LINE else json.dumps(value, ensure_ascii=False, indent=2)


# --- progress ---


def show_json(operation: Operation) -> None:
    """Write one change for programs."""
    print_json(document(operation), on_one_line=True)


def show_line(operation: Operation) -> None:
    """Write one change as a line of text."""
    message = f"  {one_line(operation.progress_message)}" if operation.progress_message else ""
    percent = _percent(operation) or "-"
    print_line(f"revision {operation.revision:<3} {operation.status:<10} {percent:>4}{message}")


@contextmanager
def live() -> Iterator[Show]:
    """Show a progress bar while the block runs; lines if the output is not a terminal."""
    out = console()
    if not out.is_terminal or out.is_dumb_terminal:
        yield show_line
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.table import Column

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(
            bar_width=None,
            style="bright_black",
            complete_style="cyan",
            finished_style="green",
            table_column=Column(ratio=2, min_width=8),
        ),
        TaskProgressColumn(),
        TextColumn(
            "{task.fields[message]}",
            markup=False,
            table_column=Column(ratio=2, no_wrap=True, overflow="ellipsis"),
        ),
        console=out,
        expand=True,
    )
    task = progress.add_task("", total=1.0, message="")

    def show(operation: Operation) -> None:
        colour = _COLOURS.get(operation.status, "cyan")
        message = one_line(operation.progress_message or "")
        progress.update(
            task,
            description=f"[{colour}]{operation.status}[/]",
            completed=operation.progress or 0.0,
            message=message,
            refresh=True,
        )

    with progress:
        yield show
