"""The policy table and the rows of the methods agree with the transition table and the protos."""

import inspect
import re
from pathlib import Path
from typing import Final

import pytest
from google.longrunning import operations_proto_pb2

from milepost.access.method import Method
from milepost.access.policy import POLICY, ROLE_OF, Permission, UseCase, authorize
from milepost.api.admin import AdminService
from milepost.api.google_operations import GoogleOperations
from milepost.api.methods import METHODS, method_of
from milepost.api.operations import OperationService
from milepost.api.webhooks import WebhookService
from milepost.api.workers import WorkerService
from milepost.domain.errors import PermissionDenied
from milepost.domain.operation import Principal, Role
from milepost.domain.relations import LISTERS, READERS, RELATIONS, access_filter
from milepost.domain.transitions import TABLE, Actor, Transition
from milepost.gen.milepost.v1 import (
    admin_service_pb2,
    operation_service_pb2,
    webhook_service_pb2,
    worker_service_pb2,
)

PROTOS: Final = Path(__file__).resolve().parents[2] / "protos/milepost/v1"
SERVICES: Final = {
    service.full_name: service
    for file in (
        admin_service_pb2,
        operation_service_pb2,
        operations_proto_pb2,
        webhook_service_pb2,
        worker_service_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
}
SERVICERS: Final = {
    f"milepost.v1.{servicer.__name__}": servicer
    for servicer in (AdminService, OperationService, WebhookService, WorkerService)
} | {"google.longrunning.Operations": GoogleOperations}
EVERYONE: Final = Principal(subject="root", roles=frozenset(Role), credential_id="k")


def comments() -> dict[str, str]:
    """Return the comment of each RPC in the protos."""
    found = {}
    for path in PROTOS.glob("*_service.proto"):
        text = path.read_text(encoding="utf-8")
        service = re.findall(r"^service (\w+)", text, re.MULTILINE)[0]
        for comment, name in re.findall(r"((?:^  //.*\n)+)^  rpc (\w+)", text, re.MULTILINE):
            words = re.sub(r"\s*//\s*", " ", comment)
            found[f"milepost.v1.{service}/{name}"] = words
    return found


def permission(method: str) -> Permission:
    """Return the permission of a method."""
    use_case = METHODS[method].use_case
    assert use_case is not None
    return POLICY[use_case]


def test_every_rpc_has_a_row():
    """Every RPC of the five services has a row, and every row is an RPC."""
    described = {
        f"{name}/{method.name}" for name, service in SERVICES.items() for method in service.methods
    }
    assert METHODS.keys() == described


@pytest.mark.parametrize("service", SERVICES)
def test_servicer_has_every_method_of_its_proto(service):
    """A servicer has one method of a request and a call for each RPC of its proto."""
    methods = {
        name: function
        for name, function in inspect.getmembers(SERVICERS[service], inspect.isfunction)
        if not name.startswith("_")
    }
    assert methods.keys() == {method.name for method in SERVICES[service].methods}
    for described in SERVICES[service].methods:
        function = methods[described.name]
        _self, _request, call = inspect.signature(function).parameters.values()
        assert call.annotation == ("StreamingCall" if described.client_streaming else "ApiCall")
        assert inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def test_every_use_case_is_in_the_table_and_has_a_method():
    """The table has a row for each use case, and each has a method."""
    assert POLICY.keys() == set(UseCase)
    assert {method.use_case for method in METHODS.values()} == set(UseCase)


@pytest.mark.parametrize("use_case", UseCase)
def test_every_use_case_has_a_role(use_case):
    """Each row has a role; no principal acts as the sweeper."""
    row = POLICY[use_case]
    assert row.roles
    assert row.by <= ROLE_OF.keys()
    assert Actor.SWEEPER not in row.by
    assert row.relations == row.by & RELATIONS


@pytest.mark.parametrize("use_case", [each for each in UseCase if POLICY[each].transition])
def test_transitions_are_for_the_actors_of_the_transition_table(use_case):
    """A use case with a transition is for the actors of that transition, and no others."""
    row = POLICY[use_case]
    assert row.transition is not None
    assert row.by == TABLE[row.transition].by - {Actor.SWEEPER}
    # A transition has an audit line of its own.
    assert not any(row.audited for row in METHODS.values() if row.use_case is use_case)


def test_every_transition_of_principals_has_a_use_case():
    """Every transition has a use case, except those of the sweeper alone."""
    asked_for = {transition for transition, rule in TABLE.items() if rule.by != {Actor.SWEEPER}}
    rows = POLICY.values()
    made = {row.transition for row in rows} | {row.alternative for row in rows}
    assert made - {None} == asked_for


def test_alternative_is_for_the_same_principals():
    """The principals of a use case may make both of its transitions."""
    alternatives = {row.alternative: row.by for row in POLICY.values() if row.alternative}
    assert set(alternatives) == {Transition.RETRY, Transition.REQUEST_CANCEL}
    for transition, by in alternatives.items():
        assert TABLE[transition].by - {Actor.SWEEPER} == by


def test_reads_and_lists_are_for_the_relations_of_the_domain():
    """The roles of reads and lists follow from the relations that the store uses for them."""
    assert POLICY[UseCase.READ_OPERATION].by == READERS
    assert POLICY[UseCase.LIST_OPERATIONS].by == LISTERS


@pytest.mark.parametrize("method", [name for name in METHODS if name.startswith("milepost.")])
def test_comments_of_the_protos_agree(method):
    """The comment of each RPC names its transition, or says that it changes nothing."""
    comment, row = comments()[method], permission(method)
    transitions = re.findall(r"Transition: (\w+)\.", comment)
    assert transitions == [str(made) for made in (row.transition, row.alternative) if made]
    if "changes nothing" in comment:
        assert row.transition is None
        assert not METHODS[method].audited
    if row.transition and row.relations == {Actor.OWNER, Actor.ADMIN}:
        assert "Available to the owner and to admins." in comment


@pytest.mark.parametrize("use_case", UseCase)
@pytest.mark.parametrize("roles", [[], *([role] for role in Role), list(Role)])
def test_access_filter_has_no_more_than_the_relations(use_case, roles):
    """The access filter follows from the roles of a principal and the relations of the use case."""
    principal = Principal(
        subject="alice", roles=frozenset(roles), credential_id="k", functions=("video.*",)
    )
    row = POLICY[use_case]
    found = access_filter(principal, row.by)
    assert found.subject == "alice"
    assert found.everything == (Actor.ADMIN in row.by and Role.ADMIN in roles)
    granted = Actor.WORKER in row.by and Role.WORKER in roles
    assert found.functions == (("video.*",) if granted else ())


@pytest.mark.parametrize("use_case", UseCase)
@pytest.mark.parametrize("role", Role)
def test_one_role_of_the_use_case_is_enough(use_case, role):
    """A principal with any role of the use case may call it, and one with other roles may not."""
    principal = Principal(subject="alice", roles=frozenset({role}), credential_id="k")
    method = Method(name="test", use_case=use_case)
    if role in POLICY[use_case].roles:
        authorize(principal, method)
        return
    with pytest.raises(PermissionDenied) as caught:
        authorize(principal, method)
    assert caught.value.facts["role"] == " or ".join(sorted(POLICY[use_case].roles))


def test_method_without_a_row_is_refused_to_everyone():
    """A method that is not in the table is refused for every role."""
    unlisted = method_of("milepost.v1.OperationService/Unlisted")
    with pytest.raises(PermissionDenied) as caught:
        authorize(EVERYONE, unlisted)
    assert caught.value.facts == {"role": "none"}
    assert not unlisted.is_public
