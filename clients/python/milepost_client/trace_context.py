"""The trace of the caller, which its calls and the worker continue where OpenTelemetry is in use.

The client does not depend on OpenTelemetry: the application that uses it has imported it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CONTEXT = "opentelemetry.context"


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call in the current context, such as ``traceparent``.

    It is empty without a current span. The propagator of the application chooses the format.
    """
    if sys.modules.get(_CONTEXT) is None:  # nothing can be current: do not import it either
        return ()
    from opentelemetry.propagate import inject  # noqa: PLC0415 - it may not be installed

    carrier: dict[str, str] = {}
    inject(carrier)
    return tuple((name.lower(), value) for name, value in carrier.items() if value.isascii())


def current_context() -> Any:
    """Return the current context of OpenTelemetry, to be carried to another thread, or None."""
    context = sys.modules.get(_CONTEXT)
    return None if context is None else context.get_current()


def creating_context(traceparent: str | None) -> Any:
    """Return the current context with the span of a ``traceparent``, which created an operation.

    A malformed one leaves the context as it is. Return None without one, or without OpenTelemetry.
    """
    current = current_context()
    if traceparent is None or current is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - see above
        TraceContextTextMapPropagator,
    )

    # Not the propagator of the application, which may read another format.
    return TraceContextTextMapPropagator().extract({"traceparent": traceparent}, current)


@contextmanager
def carried(current: Any) -> Iterator[None]:
    """Make a context current inside of the block; None changes nothing."""
    if current is None:
        yield
        return
    context = sys.modules[_CONTEXT]
    token = context.attach(current)
    try:
        yield
    finally:
        context.detach(token)
