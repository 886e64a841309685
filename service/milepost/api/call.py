"""One call of the API, as its servicers see it."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

from milepost.access.call import Call

if TYPE_CHECKING:
    from google.protobuf.message import Message


class ApiCall(Call, abc.ABC):
    """One call of a method of the API. Each protocol fills in what its calls carry."""

    __slots__ = ()

    @property
    @abc.abstractmethod
    def waits(self) -> bool:
        """True if the call may wait for a change instead of just running."""

    @property
    @abc.abstractmethod
    def seconds_left(self) -> float | None:
        """The time to the deadline of the caller; None without one."""

    @property
    @abc.abstractmethod
    def preferred_wait(self) -> int:
        """The seconds for which the caller prefers to wait for a change; 0 for not at all."""


class StreamingCall(ApiCall):
    """A call whose both sides send messages at any time. Only gRPC carries these."""

    __slots__ = ()

    @abc.abstractmethod
    async def write(self, message: Message) -> Any:
        """Send one message of the service's side."""
