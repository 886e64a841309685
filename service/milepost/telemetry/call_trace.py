"""The trace of the current call or of background work, and the links between traces."""

from __future__ import annotations

import random
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from opentelemetry.trace import SpanKind, StatusCode

from milepost.telemetry import traceparent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span, SpanContext, Tracer

    from milepost.domain.operation import OperationId

    Attributes = Mapping[str, str | int | float | bool]

OPERATION_ID: Final = "milepost.operation.id"
MAX_LINKS: Final = 128
"""Links of one span; the SDK would drop the first ones for further ones."""
_NOT_ZERO: Final = 1 << 64 | 1
"""Bits that keep both ids from being zero, which W3C Trace Context forbids."""


class Trace:
    """A call, or background work, and its trace. Without a span, its ids are made on first use."""

    __slots__ = (
        "_ids",
        "_linked",
        "_operations",
        "known",
        "method",
        "peer",
        "span",
        "tracer",
    )

    def __init__(self, method: str = "", peer: str = "", tracer: Tracer | None = None) -> None:
        """Describe a call, which is not recorded yet.

        Args:
            method: of the call; empty for background work.
            peer: the connection of the call.
            tracer: makes spans; None without a collector.
        """
        self.method = method
        self.peer = peer
        self.tracer = tracer
        self.span: Span | None = None
        self.known: tuple[str, str, int] | None = None
        """Ids that came from elsewhere; see `traceparent.ids_of`."""
        self._ids: tuple[str, str, int] | None = None
        # Sets of their own for the few calls that are recorded.
        self._linked: set[tuple[int, int]] | None = None
        self._operations: set[OperationId] | None = None

    @property
    def ids(self) -> tuple[str, str, int]:
        """The trace id and the span id in hexadecimal digits, and the trace flags."""
        if self._ids is None:
            own = self.known or _new_ids()
            self._ids = (
                own if self.span is None else traceparent.ids_of(self.span.get_span_context())
            )
        return self._ids

    @property
    def recording(self) -> SpanContext | None:
        """The span of this call, if it is recorded, also after its end."""
        return None if self.span is None else self.span.get_span_context()

    def begin(self, name: str, begun: int) -> None:
        """Begin the span of background work that turned out to have something to do."""
        if self.span is None and self.tracer is not None:
            self.span = self.tracer.start_span(name, start_time=begun, kind=SpanKind.INTERNAL)

    def join(self, operation_id: OperationId, created: str | None) -> None:
        """Note that the call concerns an operation, and link it to the trace of the create.

        A call of one operation has its id. A call of several has a link to each.
        """
        span = self.span
        if span is None or not span.is_recording():
            return
        self._operations = self._operations or set()
        if len(self._operations) <= 1:
            self._operations.add(operation_id)
        found = traceparent.read(created)
        if found is not None and found.trace_id != span.get_span_context().trace_id:
            self.link(found)

    def link(self, other: SpanContext) -> None:
        """Link the span to another one, once."""
        self._linked = self._linked or set()
        ids = (other.trace_id, other.span_id)
        if self.span is not None and ids not in self._linked and len(self._linked) < MAX_LINKS:
            self._linked.add(ids)
            self.span.add_link(other)

    def end(self, attributes: Attributes, *, error: str | None = None) -> None:
        """End the span, if there is one.

        Args:
            attributes: the outcome.
            error: the class of the error, if it is one of the service.
        """
        if self.span is None:
            return
        if self._operations is not None and len(self._operations) == 1:
            self.span.set_attribute(OPERATION_ID, *self._operations)
        self.span.set_attributes(attributes)
        end_span(self.span, error)


def end_span(span: Span, error: str | None, *, end_time: int | None = None) -> None:
    """End a span; with the class of an error it has failed."""
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(StatusCode.ERROR)
    span.end(end_time)


def _new_ids() -> tuple[str, str, int]:
    digits = (random.getrandbits(192) | _NOT_ZERO).to_bytes(24, "big").hex()
    return digits[:32], digits[32:], 0


current: Final[ContextVar[Trace | None]] = ContextVar("milepost_trace", default=None)


def current_traceparent() -> str | None:
    """Return the W3C traceparent of the current call."""
    found = current.get()
    return None if found is None else "00-{}-{}-{:02x}".format(*found.ids)


def current_trace_id() -> str:
    """Return the trace id of the current call, which its log lines have."""
    found = current.get()
    return "none" if found is None else found.ids[0]


def current_sample() -> dict[str, str] | None:
    """Return the ids of the current call as an exemplar, or None if its trace is not sampled."""
    found = current.get()
    if found is None or found.span is None or not found.ids[2]:
        return None
    return {"trace_id": found.ids[0], "span_id": found.ids[1]}


def recorded_call() -> Trace | None:
    """Return the current call if it is recorded."""
    found = current.get()
    return None if found is None or found.span is None else found


def join_trace(operation_id: OperationId, created: str | None) -> None:
    """Note that the current call concerns an operation; see `Trace.join`."""
    found = current.get()
    if found is not None:
        found.join(operation_id, created)
