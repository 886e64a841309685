"""The ``traceparent`` of W3C Trace Context, as callers send it and operations keep it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context

_FORM: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_ODD: Final = frozenset("13579bdf")
"""Last digits of flags with the lowest bit, which says that the trace is sampled."""


def read(text: str | bytes | None) -> SpanContext | None:
    """Return the span that a ``traceparent`` names, or None if it is missing or malformed."""
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return None
    named = SpanContext(
        trace_id=int(found["trace"], 16),
        span_id=int(found["span"], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(found["flags"], 16)),
    )
    return named if named.is_valid else None


def ids_of(span: SpanContext) -> tuple[str, str, int]:
    """Return the trace id and the span id in hexadecimal digits, and the trace flags."""
    return format_trace_id(span.trace_id), format_span_id(span.span_id), span.trace_flags


def context_of(span: SpanContext) -> Context:
    """Return the context of a child of a span."""
    return set_span_in_context(NonRecordingSpan(span))


def is_sampled(stored: str | None) -> bool:
    """Return whether the trace of a stored ``traceparent`` is sampled, without reading it all."""
    return stored is not None and stored[-1:] in _ODD
