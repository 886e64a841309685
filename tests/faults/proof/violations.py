"""The kinds of violations that the checker looks for."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A fact that a system that loses nothing never shows."""

    LOST = "an acknowledged change is lost"
    DEFECT = "the service met an error that it does not know"
    PHANTOM = "an answer shows a state that was never committed"
    UNASKED = "a change happened that no call asked for"
    REFUSED = "a refused call has changed something"
    UNJUST = "a call was refused for a state that the operation never had"
    REPEATED = "one request has changed something twice, or two requests made one change"
    ILLEGAL = "a transition is not in the transition table"
    TWO_ENDS = "an operation has ended twice"
    STUCK = "an operation has not ended"
    STALE = "a read is older than an answer before it"
    OWNER = "an answer shows the operation of another owner"
    ATTEMPT = "a change of an earlier attempt reached a later one"
    LEASE = "a lease is not as long as the database's clock says"
    SWEPT = "a lease was ended before its time"
    WATCH_GAP = "a watch left a change out"
    WATCH_REPEAT = "a watch showed a change twice, or in the wrong order"
    MADE_UP = "a webhook without a committed change"
    UNTOLD = "a committed end without a webhook"
    WEBHOOK_ID = "one event was sent under several webhook-ids"
    SIGNATURE = "the signature of a webhook is not valid"
    SETTLED = "a delivery was settled by an attempt that did not hold it"
    QUOTA = "the quota does not match the active operations"


@dataclass(frozen=True, slots=True)
class Violation:
    """One violation."""

    kind: Kind
    detail: str
    """For people: the operation, the call and what is wrong."""

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.kind.name}: {self.kind}: {self.detail}"
