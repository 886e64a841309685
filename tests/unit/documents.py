"""The parts of the documents that are generated from the code."""

import re
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from milepost import config
from milepost.access.admission import MAX_CALLS, MAX_WAITING_CALLS
from milepost.access.bad_credentials import MAX_FAILURES_PER_MINUTE
from milepost.access.policy import POLICY
from milepost.api.methods import METHODS
from milepost.api.progress_updates import MAX_UPDATES
from milepost.api.refusals import MAX_BYTES
from milepost.domain.limits import Limits
from milepost.domain.rates import Allowance
from milepost.domain.transitions import FALLBACK, PROGRESS_TOLERANCE, TABLE, Actor
from milepost.rpc.options import METADATA_BYTES
from milepost.storage.batching import MAX_WAITING
from tests.unit.command_reference import command_reference

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = ROOT / "README.md"
RETRIES: Final = ROOT / "docs/retries.md"
ARCHITECTURE: Final = ROOT / "docs/architecture.md"
OPERATING: Final = ROOT / "docs/operating.md"
COMMANDS: Final = ROOT / "docs/cli.md"
TRACING: Final = ROOT / "docs/tracing.md"
_NOTHING: Final = "-"

LIMITS: Final = (
    ("ttl", "{ttl_default}; {ttl_min} … {ttl_max}", "clamped; the operation shows the value used"),
    (
        "retry_after",
        "{retry_after_default}; {retry_after_min} … {retry_after_max}",
        "clamped, likewise",
    ),
    ("max_attempts", "{max_attempts_default}; at least 1", "clamped, likewise"),
    (
        "initial_backoff",
        "{initial_backoff_default}; 0 s … {initial_backoff_max}",
        "clamped, likewise",
    ),
    (
        "backoff_multiplier",
        "{backoff_multiplier_default}; 1 … {backoff_multiplier_max}",
        "clamped, likewise",
    ),
    ("max_backoff", "{max_backoff_default}; 0 s … {max_backoff_max}", "clamped, likewise"),
    (
        "queue_timeout, run_timeout",
        "none; {phase_timeout_min} … {phase_timeout_max}",
        "clamped, likewise",
    ),
    ("schedule_time", "none; at most {schedule_max} ahead", "INVALID_ARGUMENT"),
    ("priority", "{priority_default}; 0 … {priority_max}", "INVALID_ARGUMENT"),
    ("unique_key", "none; 1 … {unique_key_length} characters", "INVALID_ARGUMENT"),
    ("progress", "0.0 … 1.0; goes back by at most {tolerance}", "clamped; refused if it goes back"),
    ("metadata", "{metadata_bytes} bytes of JSON", "INVALID_ARGUMENT"),
    (
        "nesting of metadata and error details",
        "{nesting_levels} levels of objects and lists",
        "INVALID_ARGUMENT",
    ),
    (
        "result",
        "{result_bytes} bytes, and {type_url_length} characters of its type_url",
        "INVALID_ARGUMENT",
    ),
    ("errors", "{errors_bytes} bytes together", "INVALID_ARGUMENT"),
    ("progress message", "{message_length} characters", "INVALID_ARGUMENT"),
    (
        "checkpoint",
        "{checkpoint_bytes} bytes, and {type_url_length} characters of its type_url",
        "INVALID_ARGUMENT",
    ),
    ("reason of a cancel or release", "{reason_length} characters", "INVALID_ARGUMENT"),
    (
        "function, version, worker, original_request_id",
        "{name_length} characters",
        "INVALID_ARGUMENT",
    ),
    ("callback_url", "{callback_url_length} characters", "INVALID_ARGUMENT"),
    (
        "request_id",
        "1 … 255 characters: letters, digits, `_` `.` `:` `-`",
        "INVALID_ARGUMENT",
    ),
    ("lease", "{lease_default}; {lease_min} … {lease_max}", "clamped"),
    ("delay of a release", "none; 0 s … {release_delay_max}", "clamped"),
    (
        "delay of a retry",
        "the backoff of the operation; 0 s … {retry_delay_max}",
        "clamped",
    ),
    ("grace of a cancel", "none; 0 s … {grace_max}", "clamped; 0 s cancels at once"),
    (
        "functions and operations of one claim",
        "1 … {claim_functions} and 1 … {claim_operations}",
        "INVALID_ARGUMENT",
    ),
    ("wait of a claim", "{claim_wait}", "an empty answer"),
    (
        "page_size",
        "{page_size_default}; 1 … {page_size_max}; 0 means the default",
        "clamped; INVALID_ARGUMENT if it is negative",
    ),
    (
        "a claim, or a page of a list",
        "{answer_bytes} bytes, or one item",
        "fewer operations, and another page",
    ),
    (
        "progress on a stream",
        "one commit per {stream_interval} and operation, the first and the last at once",
        "coalesced, the newest kept",
    ),
    (
        "operations of one progress stream",
        "{stream_operations}",
        "RESOURCE_EXHAUSTED, in an error item",
    ),
    (
        "updates of one message on a progress stream",
        "{stream_updates}",
        "INVALID_ARGUMENT, in one error item",
    ),
    (
        "headers of a refused call",
        "{refusal} bytes",
        "further violations are counted, long texts shortened",
    ),
    (
        "creates of one principal",
        "{creates} in 60 s",
        "RESOURCE_EXHAUSTED with RetryInfo",
    ),
    ("lists of one principal", "{lists} in 60 s", "likewise"),
    ("other reads of one principal", "{reads} in 60 s", "likewise"),
    ("cancels, deletes and other changes by one principal", "{changes} in 60 s", "likewise"),
    (
        "writes of one worker, updates of streams included",
        "{worker_writes} in 60 s",
        "likewise; a stream ends",
    ),
    (
        "active operations of one owner",
        "{active}, exact over all replicas",
        "RESOURCE_EXHAUSTED with QuotaFailure",
    ),
    ("bad credentials from one address", "{auth_failures} in 60 s", "RESOURCE_EXHAUSTED"),
    ("calls at once", "{calls} that run, {waiting_calls} that wait or stream", "UNAVAILABLE"),
    ("request message", "{request_bytes} bytes", "RESOURCE_EXHAUSTED, by gRPC itself"),
    ("metadata of a call", "{call_metadata_bytes} bytes", "RESOURCE_EXHAUSTED, by gRPC itself"),
    ("calls that wait for the database", "{waiting} in each queue", "UNAVAILABLE, at once"),
)
"""Rows of the table of limits: the limit, its value, and the error beyond it."""


def settings_table() -> str:
    """Return the table of settings, with their defaults and meanings."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in config.Settings.model_fields.items():
        variable = f"{config.PREFIX}{name.upper()}"
        rows.append(f"| `{variable}` | {_default(field)} | {field.description} |")
    return "\n".join(rows)


def client_table() -> str:
    """Return the table of the variables of the command line as a client."""
    rows = ["| variable | option | meaning |", "| --- | --- | --- |"]
    options = {"ADDRESS": "`--address`", "API_KEY": "`--api-key`"}
    for variable, meaning in config.CLIENT.items():
        option = options.get(variable.removeprefix(config.PREFIX), _NOTHING)
        rows.append(f"| `{variable}` | {option} | {meaning} |")
    return "\n".join(rows)


def otel_table() -> str:
    """Return the table of the standard variables of OpenTelemetry that apply to all signals."""
    rows = ["| variable | meaning |", "| --- | --- |"]
    rows += [
        f"| `{name}` | {meaning} |"
        for name, meaning in config.OTEL.items()
        if not re.match(r"OTEL_EXPORTER_OTLP_(TRACES|METRICS)_", name)
    ]
    return "\n".join(rows)


def _default(field: Any) -> str:
    if field.default_factory is not None:  # it depends on who runs it
        return "`milepost/milepost.db` in `$XDG_DATA_HOME` or `~/.local/share`"
    if field.default is None:
        return _NOTHING
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def limits_table() -> str:
    """Return the table of limits, with the answer beyond each."""
    values = {field.name: getattr(Limits(), field.name) for field in fields(Limits)}
    values |= {field.name: getattr(Allowance(), field.name) for field in fields(Allowance)}
    values |= {
        "auth_failures": MAX_FAILURES_PER_MINUTE,
        "calls": MAX_CALLS,
        "waiting_calls": MAX_WAITING_CALLS,
        "tolerance": PROGRESS_TOLERANCE,
        "request_bytes": config.Settings.model_fields["request_bytes_max"].default,
        "call_metadata_bytes": METADATA_BYTES,
        "waiting": MAX_WAITING,
        "refusal": MAX_BYTES,
        "stream_updates": MAX_UPDATES,
    }
    texts = {name: _quantity(value) for name, value in values.items()}
    rows = [f"| {what} | {much.format(**texts)} | {beyond} |" for what, much, beyond in LIMITS]
    return "\n".join(["| limit | value | beyond it |", "| --- | --- | --- |", *rows])


def _quantity(value: float | timedelta) -> str:
    if not isinstance(value, timedelta):
        return f"{value:,}"
    seconds = int(value.total_seconds())
    for size, unit in ((86_400, "d"), (3600, "h")):
        if seconds % size == 0 and seconds // size > (unit == "d"):
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def state_diagram() -> str:
    """Return the diagram of the transition table: one arrow for each pair of statuses."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for transition, rule in TABLE.items():
        for status in sorted(str(status) for status in rule.sources) or ["[*]"]:
            arrows.setdefault((status, rule.target or "[*]"), []).append(transition)
    lines = [
        f"    {old} --> {new}: {', '.join(transitions)}"
        for (old, new), transitions in arrows.items()
    ]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def transitions_table() -> str:
    """Return the transition table, with what happens instead of an impossible transition."""
    rows = [
        "| transition | from | to | done by | event | fallback |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for transition, rule in TABLE.items():
        sources = ", ".join(sorted(rule.sources)) or _NOTHING
        by = ", ".join(sorted(rule.by))
        event = f"`{rule.event}`" if rule.recorded or not rule.sources else _NOTHING
        fallback = FALLBACK.get(transition, _NOTHING)
        target = rule.target or "gone"
        rows.append(f"| {transition} | {sources} | {target} | {by} | {event} | {fallback} |")
    return "\n".join(rows)


FOR: Final = {
    Actor.CALLER: "the caller that creates it",
    Actor.OWNER: "its owner",
    Actor.WORKER: "a worker with the grant",
    Actor.ADMIN: "an admin",
}


def policy_table() -> str:
    """Return the table of the roles that may call each RPC, and the operations it reaches."""
    rows = ["| call | role | reaches operations of | transition |", "| --- | --- | --- | --- |"]
    for method in METHODS.values():
        assert method.use_case is not None
        permission = POLICY[method.use_case]
        name = method.name.removeprefix("milepost.v1.").replace("/", ".")
        roles = ", ".join(sorted(role.lower() for role in permission.roles))
        whom = ", ".join(text for actor, text in FOR.items() if actor in permission.by)
        rows.append(f"| `{name}` | {roles} | {whom} | {permission.transition or _NOTHING} |")
    return "\n".join(rows)


GENERATED: Final[dict[tuple[Path, str], Callable[[], str]]] = {
    (README, "client variables"): client_table,
    (README, "settings"): settings_table,
    (README, "limits"): limits_table,
    (OPERATING, "who may do what"): policy_table,
    (COMMANDS, "commands"): command_reference,
    (TRACING, "OpenTelemetry variables"): otel_table,
    (ARCHITECTURE, "state diagram"): state_diagram,
    (ARCHITECTURE, "transitions"): transitions_table,
}


def renewed(text: str, name: str, part: str) -> str:
    """Return `text` with the part of this name replaced."""
    begin, end = f"<!-- generated: {name} -->\n", "<!-- end -->"
    before, found, rest = text.partition(begin)
    assert found, f"there is no place for {name}"
    _, found, after = rest.partition(end)
    assert found, f"the place for {name} has no end"
    return f"{before}{begin}\n{part}\n\n{end}{after}"


def write() -> None:
    """Write every part that is generated from the code."""
    for (path, name), make in GENERATED.items():
        text = path.read_text(encoding="utf-8")
        path.write_text(renewed(text, name, make()), encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    """Return the examples of a document in one language."""
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
