"""The history of a run: what clients asked, when, and what they were answered.

A call whose answer never came may have happened or not. Times are seconds of one monotonic clock,
that of the process with all clients, so calls of different clients can be ordered.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from milepost.domain.transitions import Transition

TRANSITIONS: Final = {
    "CreateOperation": Transition.CREATE,
    "ClaimOperations": Transition.CLAIM,
    "StartOperation": Transition.START,
    "UpdateProgress": Transition.PROGRESS,
    "StreamProgress": Transition.PROGRESS,
    "CompleteOperation": Transition.COMPLETE,
    "FailOperation": Transition.FAIL,
    "RetryOperation": Transition.RETRY,
    "ReleaseOperation": Transition.RELEASE,
    "CancelOperation": Transition.CANCEL,
    "RequestCancel": Transition.REQUEST_CANCEL,
    "AcknowledgeCancellation": Transition.ACKNOWLEDGE,
    "DeleteOperation": Transition.PURGE,
}
"""The transition of each method that changes something.

A retryable failure and a cancel with a grace have names of their own.
"""


DEFECTS: Final = frozenset({"INTERNAL", "500"})
"""Answers, by gRPC and by HTTP, that say no more than that the service is wrong."""


class Outcome(StrEnum):
    """Knowledge of a client about its call."""

    DONE = "done"
    REFUSED = "refused"
    """The answer says that nothing happened."""
    UNKNOWN = "unknown"
    """There was no answer, or one that does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """An operation as one answer shows it."""

    id: str
    revision: int
    attempt: int
    status: str | None = None
    """None in an acknowledgement of a stream, which does not show it."""
    owner: str | None = None
    progress: float | None = None
    start_time: datetime | None = None
    progress_time: datetime | None = None
    lease_expire_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of one client. Each repetition after an unknown outcome is a call of its own."""

    client: str
    """Its subject."""
    method: str
    begin: float
    end: float
    outcome: Outcome
    via: str = "grpc"
    operation_id: str | None = None
    request_id: str | None = None
    attempt: int | None = None
    """The attempt that the request names."""
    progress: float | None = None
    lease_s: float | None = None
    """The lease that a claim asked for."""
    result: bytes | None = None
    """The result of a completion, without its type."""
    callback: bool = False
    """True if the create has a callback URL."""
    reason: str = ""
    """Of the refusal, or of the missing answer."""
    replayed: bool = False
    views: tuple[View, ...] = ()

    @property
    def transition(self) -> Transition | None:
        """The transition that it asked for; None for a read."""
        return TRANSITIONS.get(self.method)


@dataclass(slots=True, kw_only=True)
class Watched:
    """All items of one watch, over all of its connections."""

    client: str
    operation_id: str
    begin: float
    after: int = 0
    """The revision after which it began; 0 for the operation as it was."""
    views: list[View] = field(default_factory=list)
    gone: bool = False
    """True if the watch ended because the operation was deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One webhook as the receiver got it."""

    webhook_id: str
    operation_id: str
    revision: int
    type: str
    status: str
    answer: int
    """The status that the receiver answered."""
    is_signed: bool = True
    """True if its signature is valid."""


@dataclass(slots=True)
class History:
    """Everything that the clients and the receiver of one run recorded."""

    calls: list[Call] = field(default_factory=list)
    watches: list[Watched] = field(default_factory=list)
    webhooks: list[Received] = field(default_factory=list)

    def observations(self) -> Iterator[tuple[Call, View]]:
        """Return every view of an answered call, with its call."""
        return (
            (call, view)
            for call in self.calls
            if call.outcome is Outcome.DONE
            for view in call.views
        )

    def save(self, path: Path) -> None:
        """Write one JSON object a line, for the search after a violation."""
        with path.open("w", encoding="utf-8") as lines:
            for kind in ("calls", "watches", "webhooks"):
                for each in getattr(self, kind):
                    record: dict[str, Any] = {"kind": kind, **dataclasses.asdict(each)}
                    lines.write(json.dumps(record, default=str) + "\n")
