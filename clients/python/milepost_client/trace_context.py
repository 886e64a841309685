"""The trace of the caller, which its calls continue where OpenTelemetry is in use.

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
