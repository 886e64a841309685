"""The one table of who may call what, and whose operations a call reaches.

A call passes two gates. The credential must have a role of the RPC, or the call is refused before
anything is read (PERMISSION_DENIED). Then the caller must stand in one of the RPC's relations to
the operation, or the operation does not exist for it (NOT_FOUND): that gate is the WHERE clause
of the one statement that reads or moves, made from `access_filter`.

An RPC that makes a transition has the actors of `transitions.TABLE`; they are not repeated here.
The auth link, the use cases, the audit log, the table in ``docs/operating.md`` and the test matrix
of every RPC and every kind of principal derive from `POLICY`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from milepost.domain.operation import Role
from milepost.domain.transitions import TABLE, Actor, Transition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from milepost.domain.operation import AccessFilter, Principal

ROLE_OF: Final[Mapping[Actor, Role]] = {
    Actor.CALLER: Role.CALLER,
    Actor.OWNER: Role.CALLER,
    Actor.WORKER: Role.WORKER,
    Actor.ADMIN: Role.ADMIN,
}
"""The role that lets an actor in. Nobody calls as the sweeper."""

RELATIONS: Final = frozenset({Actor.OWNER, Actor.WORKER, Actor.ADMIN})
"""What somebody can be to an operation: its owner, a worker that is granted its function, or an
admin, who is that to every operation."""

VIEWERS: Final = RELATIONS
"""Whose eyes a single operation is for."""
LISTERS: Final = frozenset({Actor.OWNER, Actor.ADMIN})
"""Whose operations a list shows: the asker's own, to an admin those of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One row of the table: who may call an RPC, and what it may do."""

    by: frozenset[Actor]
    transition: Transition | None = None
    """The transition of one operation that the RPC makes."""
    changes: bool = False
    """Whether it changes, or gives away, what is no operation: such a call has an audit line."""

    @property
    def roles(self) -> frozenset[Role]:
        """The roles the RPC is for; one of them is enough."""
        return frozenset(ROLE_OF[actor] for actor in self.by)

    @property
    def reaches(self) -> frozenset[Actor]:
        """The relations to an operation that let the call reach it."""
        return self.by & RELATIONS


def _transitions(transition: Transition) -> Access:
    return Access(by=TABLE[transition].by - {Actor.SWEEPER}, transition=transition)


_VIEWS: Final = Access(by=VIEWERS)
_CALLS: Final = Access(by=frozenset({Actor.OWNER}))
_CALLS_AND_CHANGES: Final = Access(by=frozenset({Actor.OWNER}), changes=True)
_ADMINISTERS: Final = Access(by=frozenset({Actor.ADMIN}), changes=True)

POLICY: Final[Mapping[str, Access]] = {
    "milepost.v1.OperationService/CreateOperation": _transitions(Transition.CREATE),
    "milepost.v1.OperationService/GetOperation": _VIEWS,
    "milepost.v1.OperationService/ListOperations": Access(by=LISTERS),
    "milepost.v1.OperationService/WaitOperation": _VIEWS,
    "milepost.v1.OperationService/WatchOperation": _VIEWS,
    "milepost.v1.OperationService/CancelOperation": _transitions(Transition.CANCEL),
    "milepost.v1.OperationService/DeleteOperation": _transitions(Transition.PURGE),
    "milepost.v1.WorkerService/ClaimOperations": _transitions(Transition.CLAIM),
    "milepost.v1.WorkerService/StartOperation": _transitions(Transition.START),
    "milepost.v1.WorkerService/UpdateProgress": _transitions(Transition.PROGRESS),
    "milepost.v1.WorkerService/StreamProgress": _transitions(Transition.PROGRESS),
    "milepost.v1.WorkerService/CompleteOperation": _transitions(Transition.COMPLETE),
    "milepost.v1.WorkerService/FailOperation": _transitions(Transition.FAIL),
    # A look at the secret is in the audit log too.
    "milepost.v1.WebhookService/GetSigningSecret": _CALLS_AND_CHANGES,
    "milepost.v1.WebhookService/RotateSigningSecret": _CALLS_AND_CHANGES,
    "milepost.v1.WebhookService/ListDeliveries": _CALLS,
    "milepost.v1.WebhookService/RedeliverWebhook": _CALLS_AND_CHANGES,
    "milepost.v1.WebhookService/SendTestWebhook": _CALLS_AND_CHANGES,
    "milepost.v1.AdminService/PurgeExpiredOperations": _ADMINISTERS,
    "milepost.v1.AdminService/CreateApiKey": _ADMINISTERS,
    "milepost.v1.AdminService/ListApiKeys": Access(by=frozenset({Actor.ADMIN})),
    "milepost.v1.AdminService/RevokeApiKey": _ADMINISTERS,
}
"""Every RPC that asks for a credential. One that is not listed is refused."""


def access_filter(by: Principal, actors: frozenset[Actor]) -> AccessFilter:
    """Return the operations that `by` reaches where these actors are let in.

    The owner always is: no list of actors keeps it out.
    """
    return by.access_filter(worker=Actor.WORKER in actors, admin=Actor.ADMIN in actors)
