"""The one table of which principals may ask for which use case, and whose operations it reaches.

A call passes two checks. The principal must have a role of the use case, or the call is refused
before anything is read (PERMISSION_DENIED). Then the principal must stand in one of the use case's
relations to the operation, or the operation does not exist for it (NOT_FOUND): that check is the
WHERE clause of the one statement that reads or changes, made by `domain.relations.access_filter`.

Relations and the actors of transitions come from the domain; they are not repeated here. The table
in ``docs/operating.md`` and the test matrix of every RPC and every kind of principal derive from
`POLICY`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from milepost.domain.errors import PermissionDenied
from milepost.domain.operation import Role
from milepost.domain.relations import LISTERS, READERS, RELATIONS
from milepost.domain.transitions import TABLE, Actor, Transition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from milepost.access.method import Method
    from milepost.domain.operation import Principal

ROLE_OF: Final[Mapping[Actor, Role]] = {
    Actor.CALLER: Role.CALLER,
    Actor.OWNER: Role.CALLER,
    Actor.WORKER: Role.WORKER,
    Actor.ADMIN: Role.ADMIN,
}
"""The role that a principal needs to act as this actor. No principal acts as the sweeper."""


class UseCase(StrEnum):
    """Something that principals ask the service for, whatever the protocol."""

    CREATE_OPERATION = "create_operation"
    READ_OPERATION = "read_operation"
    LIST_OPERATIONS = "list_operations"
    CANCEL_OPERATION = "cancel_operation"
    DELETE_OPERATION = "delete_operation"
    CLAIM_OPERATIONS = "claim_operations"
    START_OPERATION = "start_operation"
    REPORT_PROGRESS = "report_progress"
    COMPLETE_OPERATION = "complete_operation"
    FAIL_OPERATION = "fail_operation"
    RELEASE_OPERATION = "release_operation"
    MANAGE_WEBHOOKS = "manage_webhooks"
    ADMINISTER = "administer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One row of the table: the principals of one use case."""

    by: frozenset[Actor]
    transition: Transition | None = None
    """The transition of operations that the use case makes."""

    @property
    def roles(self) -> frozenset[Role]:
        """The roles that may ask for it; one of them is enough."""
        return frozenset(ROLE_OF[actor] for actor in self.by)

    @property
    def relations(self) -> frozenset[Actor]:
        """The relations to an operation that let a principal reach it."""
        return self.by & RELATIONS


def _transition(transition: Transition) -> Permission:
    return Permission(by=TABLE[transition].by - {Actor.SWEEPER}, transition=transition)


POLICY: Final[Mapping[UseCase, Permission]] = {
    UseCase.CREATE_OPERATION: _transition(Transition.CREATE),
    UseCase.READ_OPERATION: Permission(by=READERS),
    UseCase.LIST_OPERATIONS: Permission(by=LISTERS),
    UseCase.CANCEL_OPERATION: _transition(Transition.CANCEL),
    UseCase.DELETE_OPERATION: _transition(Transition.PURGE),
    UseCase.CLAIM_OPERATIONS: _transition(Transition.CLAIM),
    UseCase.START_OPERATION: _transition(Transition.START),
    UseCase.REPORT_PROGRESS: _transition(Transition.PROGRESS),
    UseCase.COMPLETE_OPERATION: _transition(Transition.COMPLETE),
    UseCase.FAIL_OPERATION: _transition(Transition.FAIL),
    UseCase.RELEASE_OPERATION: _transition(Transition.RELEASE),
    UseCase.MANAGE_WEBHOOKS: Permission(by=frozenset({Actor.OWNER})),
    UseCase.ADMINISTER: Permission(by=frozenset({Actor.ADMIN})),
}

_ROLES: Final[Mapping[UseCase | None, frozenset[Role]]] = {
    use_case: permission.roles for use_case, permission in POLICY.items()
}


def authorize(principal: Principal, method: Method) -> None:
    """Return if `principal` has a role of the use case of `method`.

    Raises:
        PermissionDenied: it has none of them; a method without a use case is refused to everyone.
    """
    roles = _ROLES.get(method.use_case, frozenset())
    if roles.isdisjoint(principal.roles):
        raise PermissionDenied(role=" or ".join(sorted(roles)) or "none")
