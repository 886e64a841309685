"""One call of the API, as its servicers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from milepost.access.call import Call

if TYPE_CHECKING:
    from google.protobuf.message import Message


class ApiCall(Call):
    """One call of a method of the API. Each protocol fills in what its calls carry."""

    __slots__ = ()

    @property
    def waits(self) -> bool:
        """True if the call may wait for a change instead of just running."""
        raise NotImplementedError

    @property
    def seconds_left(self) -> float | None:
        """The time to the deadline of the caller; None without one."""
        raise NotImplementedError

    @property
    def preferred_wait(self) -> int:
        """The seconds for which the caller prefers to wait for a change; 0 for not at all."""
        raise NotImplementedError

    async def write(self, message: Message) -> Any:
        """Send one message of a stream."""
        raise NotImplementedError
