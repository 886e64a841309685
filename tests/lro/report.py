"""Checking every clause, and the report."""

from collections.abc import Iterator
from dataclasses import dataclass

import grpc

from tests.lro.clauses import CLAUSES, Clause
from tests.lro.target import CommandFailed, NotOffered, NotTried, Target

HOLDS, DIFFERS, NOT_TRIED, NOT_OFFERED = "holds", "DIFFERS", "not tried", "not there"


@dataclass(frozen=True)
class Finding:
    """The result of one clause."""

    clause: Clause
    result: str
    what: str = ""

    def __str__(self) -> str:
        """Return the line of the report."""
        line = f"{self.result:9}  {self.clause.name:17}  {self.clause.text}"
        return f"{line}\n{'':30}-> {self.what}" if self.what else line


def findings(target: Target) -> Iterator[Finding]:
    """Check one clause after the other."""
    for each in CLAUSES:
        try:
            what = each.check(target)
        except NotTried:
            yield Finding(each, NOT_TRIED)
        except NotOffered:
            yield Finding(each, NOT_OFFERED)
        except CommandFailed as failure:
            yield Finding(each, DIFFERS, str(failure))
        except grpc.RpcError as refusal:
            yield Finding(each, DIFFERS, f"{refusal.code().name}: {refusal.details()}")
        else:
            yield Finding(each, DIFFERS if what else HOLDS, what or "")
