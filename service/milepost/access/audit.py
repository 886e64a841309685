"""The audit line, and the metric, of a refused call: the same for every protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost import telemetry
from milepost.domain.errors import LimitReached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from milepost.domain.errors import MilepostError
    from milepost.domain.operation import Principal


def record_refusal(
    error: MilepostError, by: Principal | None, ids: Mapping[str, str], *, code: str
) -> None:
    """Log that a call, or one item of a stream, was refused, and count it if a limit did so.

    Args:
        error: why.
        by: the caller, if it is known.
        ids: what the call was about, by the names of its fields.
        code: the status of the answer, as the protocol calls it.
    """
    telemetry.record_refusal(by, ids, code=code, reason=error.reason, facts=error.facts)
    if isinstance(error, LimitReached):
        telemetry.record_limited(error.limit)
