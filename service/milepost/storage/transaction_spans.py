"""Spans of database transactions, linked to the recorded calls that each one carried.

A transaction of one recorded call is a child of it. One that carried several recorded calls has a
trace of its own, with a link to each, and each call has a link to it. A transaction without a
recorded call has no span.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from opentelemetry.trace import Link, SpanKind

from milepost import telemetry
from milepost.domain.errors import MilepostError, Unavailable
from milepost.telemetry import conventions, traceparent
from milepost.telemetry.call_trace import MAX_LINKS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy.engine import Engine

Function = TypeVar("Function", bound="Callable[..., Any]")
Statement = tuple[str, str | None]
"""A command of SQL, and the table that it is about, if that is known."""

_STATEMENT: Final = "statement"


def named(command: str, table: str | None = None) -> Callable[[Function], Function]:
    """Name the statement that a function runs, for its spans."""

    def mark(function: Function) -> Function:
        setattr(function, _STATEMENT, (command, table))
        return function

    return mark


class TransactionSpans:
    """Makes the spans of the transactions of one database."""

    def __init__(self, engine: Engine) -> None:
        """Describe the database without connecting."""
        url = engine.url
        namespace = url.database or ""
        self._attributes: dict[str, str | int] = {"db.system.name": engine.dialect.name}
        if engine.dialect.name == "sqlite":
            namespace = Path(namespace).name
        elif url.host:
            self._attributes |= conventions.server((url.host, url.port))
        self._attributes["db.namespace"] = namespace

    def record(
        self,
        traces: Sequence[telemetry.Trace | None],
        runs: Collection[Callable[..., Any]],
        results: Sequence[object],
        *,
        begun: int,
    ) -> None:
        """Record a transaction that has ended.

        Args:
            traces: the recorded calls that it carried; None for those that are not recorded.
            runs: the functions that it ran, each with one statement.
            results: of the calls.
            begun: its start in nanoseconds since 1970.
        """
        recorded = list(dict.fromkeys(trace for trace in traces if trace is not None))
        if recorded:
            self._record(recorded, len(traces), runs, results, begun)

    def _record(
        self,
        recorded: Sequence[telemetry.Trace],
        size: int,
        runs: Collection[Callable[..., Any]],
        results: Sequence[object],
        begun: int,
    ) -> None:
        contexts = [context for trace in recorded if (context := trace.recording) is not None]
        tracer = recorded[0].tracer
        if tracer is None:
            return
        is_alone = len(contexts) == 1
        operation, table = _statement(runs, size)
        span = tracer.start_span(
            " ".join(filter(None, (operation, table))) or str(self._attributes["db.namespace"]),
            context=traceparent.context_of(contexts[0]) if is_alone else None,
            kind=SpanKind.CLIENT,
            attributes=self._attributes,
            links=() if is_alone else [Link(context) for context in contexts[:MAX_LINKS]],
            start_time=begun,
        )
        if operation:
            span.set_attribute("db.operation.name", operation)
        if table:
            span.set_attribute("db.collection.name", table)
        if size > 1:
            span.set_attribute("db.operation.batch.size", size)
        telemetry.end_span(span, _error(results))
        if not is_alone:
            for trace in recorded[:MAX_LINKS]:
                trace.link(span.get_span_context())


def _statement(runs: Collection[Callable[..., Any]], size: int) -> Statement:
    """Return the name of a transaction; that of several calls is a batch."""
    statements = {_statement_of(run) for run in runs}
    commands = {command for command, _ in statements}
    tables = {table for _, table in statements}
    table = tables.pop() if len(tables) == 1 else None
    if len(commands) > 1:
        return "BATCH", table
    command = commands.pop()
    return (f"BATCH {command}" if command and size > 1 else command), table


def _statement_of(run: Callable[..., Any]) -> Statement:
    unnamed: Statement = ("", None)
    of_owner: Statement = getattr(getattr(run, "__self__", None), _STATEMENT, unnamed)
    found: Statement = getattr(run, _STATEMENT, of_owner)
    return found


def _error(results: Sequence[object]) -> str | None:
    """Return the class of the error of a transaction that no call got a result from."""
    first = results[0] if results else None
    if not isinstance(first, Exception) or not all(isinstance(r, Exception) for r in results):
        return None
    if isinstance(first, MilepostError):
        return first.reason if isinstance(first, Unavailable) else None
    return type(first).__name__
