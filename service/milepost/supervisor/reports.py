"""The messages between the supervisor and a replica, over a pair of connected sockets.

The supervisor sends single bytes. The replica answers each with a report, and sends a last report
before it ends. Each side notices the end of the other one by the end of the connection, however it
ended.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Final

ASK_STATE: Final = b"s"
ASK_METRICS: Final = b"m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The state of a replica."""

    problem: str | None
    """The reason why it is not ready, or None."""
    degraded: dict[str, str] = field(default_factory=dict)
    """Parts that do not work although it may be ready, each with the cause."""
    metrics: str | None = None
    """The page of its metrics, if it was asked for them."""

    @property
    def line(self) -> bytes:
        """The report as it is sent."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Report:
        """Return the report of a line.

        Raises:
            ValueError: the line is cut off.
        """
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Part of a replica, which the supervisor puts on its command line."""

    number: int
    """Number of the process, which its log lines and its series of metrics have."""
    channel: int
    """File descriptor of the connection to the supervisor."""
    listen: str
    """Address of the gRPC port, which the processes share."""
    http_listen: str
    """Address of the API over HTTP, which they share as well; empty if it is not served."""

    def __str__(self) -> str:
        """Return the assignment as an argument."""
        return f"{self.number},{self.channel},{self.listen},{self.http_listen}"

    @classmethod
    def read(cls, text: str) -> Assignment:
        """Return the assignment of an argument.

        Raises:
            ValueError: it is not one.
        """
        number, channel, listen, http_listen = text.split(",")
        return cls(number=int(number), channel=int(channel), listen=listen, http_listen=http_listen)
