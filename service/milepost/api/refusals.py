"""The statuses of refused calls, bounded so that every proxy passes them on.

A refusal travels in headers: the sentence percent-encoded, and the whole status, with the sentence
again, in base64. nginx reads the headers of a response into one buffer of 4 KiB. If they exceed it,
nginx answers 502 and takes the replica for broken, so that one bad request of one caller would take
every replica away from all others.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.rpc import error_details_pb2, status_pb2

from milepost.domain.errors import InvalidRequest, Violation

if TYPE_CHECKING:
    import grpc
    from google.protobuf.message import Message

DOMAIN: Final = "milepost"
MAX_BYTES: Final = 3_584
"""Maximum size of all headers of a refusal."""
_ENTRY_BYTES: Final = 32
"""Cost of one header beside its name and its value, by HTTP/2 (RFC 9113, 6.5.2)."""
_HEADERS: Final[Mapping[str, str]] = {
    ":status": "200",
    "content-type": "application/grpc",
    "grpc-accept-encoding": "identity, deflate, gzip",
    "grpc-status": "16",
    "grpc-message": "",
    "grpc-status-details-bin": "",
}
_HEADERS_BYTES: Final = sum(
    len(name) + len(value) + _ENTRY_BYTES for name, value in _HEADERS.items()
)
_TEXT_BYTES: Final = (1_024, 512, 256, 128, 64)
"""Maximum sizes of one text, of which the first is used with which the refusal fits."""
_CUT: Final = "..."
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}
"""The bytes of a sentence that gRPC sends as they are. It sends any other byte as %XX."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The parts of a refusal, whatever their size."""

    code: grpc.StatusCode
    reason: str
    message: str
    facts: Mapping[str, str]
    violations: tuple[Violation, ...] = ()
    omitted: int = 0
    """Number of further violations. If there are violations, they make up the message."""
    detail: Message | None = None
    """A further detail, which is small."""

    def status(self) -> status_pb2.Status:
        """Return the status, of at most `MAX_BYTES` on the wire.

        If it is larger, its texts are shortened, and the last violations are only counted.
        """
        status = self._whole()
        for max_bytes in _TEXT_BYTES:
            if wire_bytes(status) <= MAX_BYTES:
                break
            status = self._shortened(max_bytes)._fitting()  # noqa: SLF001 - of the same class
        return status

    def _whole(self) -> status_pb2.Status:
        violations = self.reported()
        status = status_pb2.Status(
            code=self.code.value[0],
            message=str(InvalidRequest(*violations)) if violations else self.message,
        )
        info = error_details_pb2.ErrorInfo(
            reason=self.reason, domain=DOMAIN, metadata=dict(self.facts)
        )
        for detail in (info, self.detail, _bad_request(violations)):
            if detail is not None:
                status.details.add().Pack(detail, deterministic=True)
        return status

    def reported(self) -> tuple[Violation, ...]:
        """Return the violations, and the number of those that are omitted as one more."""
        if not self.omitted:
            return self.violations
        return (*self.violations, Violation("request", f"has {self.omitted} more violations"))

    def _shortened(self, max_bytes: int) -> Refusal:
        """Return the refusal with no text above `max_bytes` on the wire."""
        return dataclasses.replace(
            self,
            message=shortened(self.message, max_bytes),
            facts={name: shortened(text, max_bytes) for name, text in self.facts.items()},
            violations=tuple(
                Violation(shortened(each.field, max_bytes), shortened(each.problem, max_bytes))
                for each in self.violations
            ),
        )

    def _fitting(self) -> status_pb2.Status:
        """Return the status with as many violations as fit."""
        counts = range(1, len(self.violations) + 1)
        too_many = bisect.bisect_right(
            counts, MAX_BYTES, key=lambda count: wire_bytes(self._first(count))
        )
        return self._first(max(1, too_many)) if self.violations else self._whole()

    def _first(self, count: int) -> status_pb2.Status:
        omitted = self.omitted + len(self.violations) - count
        kept = dataclasses.replace(self, violations=self.violations[:count], omitted=omitted)
        return kept._whole()  # noqa: SLF001 - of the same class


def wire_bytes(status: status_pb2.Status) -> int:
    """Return the size of all headers of a refusal, as HTTP/2 counts it."""
    return _HEADERS_BYTES + _percent_bytes(status.message) + -(-status.ByteSize() // 3) * 4


def shortened(text: str, max_bytes: int) -> str:
    """Return a text, or its beginning and an ellipsis, of at most `max_bytes` percent-encoded."""
    if _percent_bytes(text) <= max_bytes:
        return text
    left = max_bytes - len(_CUT)
    for n, character in enumerate(text):
        left -= _percent_bytes(character)
        if left < 0:
            return text[:n] + _CUT
    return text


def _percent_bytes(text: str) -> int:
    return sum(1 if byte in _PLAIN else 3 for byte in text.encode())


def _bad_request(violations: tuple[Violation, ...]) -> error_details_pb2.BadRequest | None:
    if not violations:
        return None
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=each.field, description=each.problem)
            for each in violations
        ]
    )
