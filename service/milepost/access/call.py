"""One call, of any protocol, on its way to the use case that it asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from milepost.access.method import Method
    from milepost.domain.operation import Principal


class Call:
    """One call. A protocol may add what its own adapters need."""

    __slots__ = ("authenticated", "method", "peer")

    def __init__(self, method: Method, peer: str) -> None:
        """Describe a call of `method` from the connection `peer`, by a caller not yet known."""
        self.method = method
        self.peer = peer
        self.authenticated: Principal | None = None
        """The caller, once it is known; None in a call that was refused before that."""

    @property
    def principal(self) -> Principal:
        """The caller. Every call that reaches a use case has one.

        Raises:
            LookupError: the call was not authenticated.
        """
        if self.authenticated is None:
            raise LookupError("the call was not authenticated")
        return self.authenticated
