"""Who makes the current call: set once by the auth link, read by the servicers."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from milepost.domain.operation import Principal

_principal: Final[ContextVar[Principal]] = ContextVar("milepost_principal")


def admit(principal: Principal) -> None:
    """Make `principal` the one who makes the current call."""
    _principal.set(principal)


def caller() -> Principal:
    """Return who makes the current call. Every call that reaches a servicer has one."""
    return _principal.get()


def known_caller() -> Principal | None:
    """Return who makes the current call, if that was found out: also of a refused one."""
    return _principal.get(None)
