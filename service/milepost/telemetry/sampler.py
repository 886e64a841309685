"""The share of traces that is recorded, as the settings or the ``OTEL_`` variables say."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import SpanContext

_SAMPLER: Final = "OTEL_TRACES_SAMPLER"
_ARGUMENT: Final = "OTEL_TRACES_SAMPLER_ARG"
_FOLLOWS: Final = "parentbased_"
_RATIOS: Final[Mapping[str, float | None]] = {
    "always_on": 1.0,
    "always_off": 0.0,
    "traceidratio": None,
}
"""The ratio of each sampler; None for the one in the argument."""
_LOW_BITS: Final = (1 << 64) - 1
"""The part of a trace id that is random in every implementation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Decides whether a call is recorded, before a span is made for it."""

    ratio: float
    """Share of the traces that begin here, 0 to 1."""
    follows_caller: bool = True
    """True if a call in the trace of its caller is recorded if that is."""

    def takes(self, caller: SpanContext | None) -> bool:
        """Return whether to record a call, whose caller may have sent a span."""
        if caller is None:
            return random.random() < self.ratio  # noqa: S311 - a sample
        if self.follows_caller:
            return caller.trace_flags.sampled
        return caller.trace_id & _LOW_BITS < self.ratio * (_LOW_BITS + 1)


NEVER: Final = Sampler(ratio=0.0, follows_caller=False)


def sampler_of(ratio: float, *, is_chosen: bool) -> Sampler:
    """Return the sampler of the settings, or of ``OTEL_TRACES_SAMPLER``.

    Args:
        ratio: share of the traces that begin here.
        is_chosen: the operator has set the ratio, which then precedes the variable.
    """
    sampler = _sampler()
    if is_chosen or not sampler:
        return Sampler(ratio=ratio)
    of_sampler = _RATIOS[sampler.removeprefix(_FOLLOWS)]
    return Sampler(
        ratio=_argument() if of_sampler is None else of_sampler,
        follows_caller=sampler.startswith(_FOLLOWS),
    )


def problems() -> list[str]:
    """Return one line for each of the two variables that has an invalid value."""
    sampler = _sampler()
    if sampler and sampler.removeprefix(_FOLLOWS) not in _RATIOS:
        names = ", ".join(f"[{_FOLLOWS}]{name}" for name in _RATIOS)
        return [f"{_SAMPLER}: must be one of {names}"]
    try:
        is_valid = 0 <= _argument() <= 1
    except ValueError:
        is_valid = False
    return [] if is_valid else [f"{_ARGUMENT}: must be a ratio from 0 to 1"]


def _sampler() -> str:
    return os.environ.get(_SAMPLER, "").strip().lower()


def _argument() -> float:
    return float(os.environ.get(_ARGUMENT, "").strip() or 1)
