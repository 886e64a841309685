"""The health of the database as its sessions see it: the causes of failures, and refused writes."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from milepost import telemetry
from milepost.domain.errors import MilepostError, StoreUnavailable
from milepost.storage.failures import failure
from milepost.storage.tables import service_keys
from milepost.storage.translate import WriteRefusal, cause, translate, write_refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from milepost.storage.session import Session

PROBE_BYTES: Final = 65_536
"""Size of the row that a probe writes and deletes: new pages, more than most real writes need."""
_REASONS: Final[Mapping[WriteRefusal, str]] = {
    WriteRefusal.READ_ONLY: "the database refuses writes: it is read-only",
    WriteRefusal.DISK_FULL: "the database refuses writes: its disk is full",
    WriteRefusal.IO_ERROR: "the database refuses writes: its disk reports errors",
}


class Health:
    """The failures of the sessions of a process, which report them from their threads."""

    def __init__(self) -> None:
        """Doubt that the database can be written to, until a probe succeeds."""
        self.cause: str | None = None
        """The driver's text about the last failure, for the log."""
        self.failure: str | None = None
        """The cause of the last failure, as a sentence for the operator."""
        self._refusal: WriteRefusal | None = None
        self.is_in_doubt = True
        """True if only a write can show whether the database takes writes."""
        self._refusals = 0
        self._checked_refusals = 0

    def note_failure(self, error: Exception, *, may_write: bool = True) -> None:
        """Note an error of the driver; only failures of the database count.

        After a failure of a session that may write, only a write can show that writes are taken:
        they may hang while reads are answered, as without a synchronous standby.
        """
        if isinstance(error, MilepostError):  # noted already
            return
        if not isinstance(translate(error), StoreUnavailable):
            return
        self.cause, self.failure = cause(error), failure(error)
        self.is_in_doubt |= may_write
        if refusal := write_refusal(error):
            self._refusal = refusal
            self.is_in_doubt = True
            self._refusals += 1
            telemetry.record_refused_write(refusal.value)

    @property
    def refusal(self) -> str | None:
        """The reason for which the database refused the last write, or None."""
        return None if self._refusal is None else _REASONS[self._refusal]

    def note_probe(self, *, succeeded: bool) -> None:
        """Note the end of a probe.

        Unless the database was read-only, a success counts if no write was refused since the last
        probe: other writes may still fail for want of space where the probe finds some.
        """
        is_stable = self._refusals == self._checked_refusals
        if succeeded and (is_stable or self._refusal is WriteRefusal.READ_ONLY):
            self._refusal, self.is_in_doubt = None, False
        self._checked_refusals = self._refusals


def probe_writes(session: Session) -> None:
    """Write and delete a row; raise the error of the driver if the database refuses that."""
    name = f"probe-{secrets.token_hex(8)}"  # replicas do not wait for each other
    session.connection.execute(
        sa.insert(service_keys), {"name": name, "value": secrets.token_bytes(PROBE_BYTES)}
    )
    session.connection.execute(sa.delete(service_keys).where(service_keys.c.name == name))
