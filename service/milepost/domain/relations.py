"""The relations between principals and operations, and the operations that they reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from milepost.domain.transitions import Actor

if TYPE_CHECKING:
    from milepost.domain.operation import AccessFilter, Principal

RELATIONS: Final = frozenset({Actor.OWNER, Actor.WORKER, Actor.ADMIN})
"""Relations of a principal to an operation: owner, worker that is granted its function, or
admin of every operation."""

READERS: Final = RELATIONS
"""The relations that let a principal read an operation."""
LISTERS: Final = frozenset({Actor.OWNER, Actor.ADMIN})
"""The relations that bring an operation into a list: a caller lists its own, an admin all."""


def access_filter(by: Principal, relations: frozenset[Actor]) -> AccessFilter:
    """Return the operations that `by` reaches where these relations let it.

    The owner always does: no set of relations keeps it out.
    """
    return by.access_filter(worker=Actor.WORKER in relations, admin=Actor.ADMIN in relations)
