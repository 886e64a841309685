"""Messages of a progress stream: updates from the worker, and the items that answer them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from milepost.domain.interruption import InterruptionKind
    from milepost.domain.operation import OperationId, Payload


class ProgressUpdate(NamedTuple):
    """Progress of one operation as its worker reports it. An absent value stays as it was.

    A tuple, because every message becomes one, and every two that are coalesced another.
    """

    id: OperationId
    attempt: int | None = None
    progress: float | None = None
    message: str | None = None
    checkpoint: Payload | None = None

    def coalesced_with(self, newer: ProgressUpdate) -> ProgressUpdate:
        """Return one update with the newest value of each kind.

        An update of another attempt replaces this one as a whole.
        """
        if newer.attempt != self.attempt:
            return newer
        progress = newer.progress
        if progress is None or (self.progress is not None and self.progress > progress):
            progress = self.progress  # a decrease within the tolerance keeps the larger value
        message = self.message if newer.message is None else newer.message
        checkpoint = newer.checkpoint or self.checkpoint
        return ProgressUpdate(self.id, self.attempt, progress, message, checkpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """Progress of an operation is committed, up to this revision."""

    id: OperationId
    revision: int
    attempt: int
    lease_expire_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """The worker must stop its work on an operation, or is asked to."""

    id: OperationId
    kind: InterruptionKind
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateError:
    """An update was refused, with the error that the unary call would return."""

    id: str
    """The id as the worker sent it, even if it is malformed."""
    error: Exception


Item = Acknowledgement | Interruption | UpdateError
