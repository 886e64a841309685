"""Errors of calls that are refused before an operation is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from milepost.domain.errors.root import MilepostError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Violation:
    """One invalid field of a request."""

    field: str
    problem: str


class InvalidRequest(MilepostError):
    """A malformed request. No data was read or changed."""

    reason = "INVALID_REQUEST"

    def __init__(self, *violations: Violation, omitted: int = 0) -> None:
        """Report every violated field at once, and how many further ones are omitted."""
        self.violations, self.omitted = violations, omitted
        super().__init__("; ".join(f"{v.field}: {v.problem}" for v in violations))


class ProgressDecrease(InvalidRequest):
    """A decrease of progress within one attempt, beyond a small tolerance."""

    reason = "PROGRESS_DECREASE"
    stated = ("current", "requested")

    def __init__(self, *, current: float | None, requested: float | None) -> None:
        """Report the stored and the refused value."""
        self.current, self.requested = current, requested
        super().__init__(
            Violation("progress", f"may not go back from {current} to {requested}"),
        )


class Unauthenticated(MilepostError):
    """A missing or invalid credential. No data was read."""

    reason = "UNAUTHENTICATED"

    def __init__(self, *, tokens: bool = False, certificates: bool = False) -> None:
        """Build one message for every cause, so that it discloses none.

        The message lists the accepted kinds of credential: API keys, and `tokens` and
        `certificates` if the operator has configured them.
        """
        bearer = "API key or token" if tokens else "API key"
        otherwise = ", or call with a trusted client certificate" if certificates else ""
        super().__init__(
            f"a valid credential is required: send 'authorization: Bearer <{bearer}>'{otherwise}"
        )


class PermissionDenied(MilepostError):
    """A credential without the role that the RPC requires. Independent of any operation."""

    reason = "PERMISSION_DENIED"

    def __init__(self, *, role: str, function: str | None = None) -> None:
        """Report the missing role, or the function that the role is not granted."""
        self.role, self.function = role, function
        granted = "" if function is None else f", granted the function {function}"
        super().__init__(f"this call needs the role {role}{granted}")

    @property
    def facts(self) -> Mapping[str, str]:
        """The role, and the function if its grant is missing."""
        function = {} if self.function is None else {"function": self.function}
        return {"role": self.role, **function}
