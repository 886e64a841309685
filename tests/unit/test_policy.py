"""The policy table: complete, and equal to the transition table and the protos."""

import re
from pathlib import Path
from typing import Final

import pytest

from milepost.domain.operation import Principal, Role
from milepost.domain.policy import POLICY, RELATIONS, ROLE_OF, access_filter
from milepost.domain.transitions import TABLE, Actor
from milepost.gen.milepost.v1 import (
    admin_service_pb2,
    operation_service_pb2,
    webhook_service_pb2,
    worker_service_pb2,
)
from milepost.rpc.interceptors.auth import ROLES

PROTOS: Final = Path(__file__).resolve().parents[2] / "protos/milepost/v1"
DESCRIBED: Final = {
    f"{service.full_name}/{method.name}"
    for file in (
        admin_service_pb2,
        operation_service_pb2,
        webhook_service_pb2,
        worker_service_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def comments() -> dict[str, str]:
    """What the protos say of each RPC."""
    found = {}
    for path in PROTOS.glob("*_service.proto"):
        text = path.read_text(encoding="utf-8")
        service = re.findall(r"^service (\w+)", text, re.MULTILINE)[0]
        for comment, name in re.findall(r"((?:^  //.*\n)+)^  rpc (\w+)", text, re.MULTILINE):
            words = re.sub(r"\s*//\s*", " ", comment)
            found[f"milepost.v1.{service}/{name}"] = words
    return found


def test_every_rpc_is_in_the_table():
    """Every RPC of the four services has a row, and every row is an RPC."""
    assert POLICY.keys() == DESCRIBED
    assert {method: access.roles for method, access in POLICY.items()} == ROLES


@pytest.mark.parametrize("method", POLICY)
def test_every_rpc_is_for_somebody(method):
    """Each row names whom it is for; nobody can call as the sweeper."""
    access = POLICY[method]
    assert access.roles
    assert access.by <= ROLE_OF.keys()
    assert Actor.SWEEPER not in access.by
    assert access.reaches == access.by & RELATIONS


@pytest.mark.parametrize("method", [name for name, access in POLICY.items() if access.transition])
def test_moves_are_done_by_whom_the_table_of_moves_says(method):
    """An RPC that makes a transition is for the actors of that transition, and for no others."""
    access = POLICY[method]
    assert access.transition is not None
    assert access.by == TABLE[access.transition].by - {Actor.SWEEPER}
    assert not access.changes  # a transition has a line of its own


def test_every_move_that_somebody_may_ask_for_has_an_rpc():
    """No transition but those of the sweeper alone is without a call."""
    asked_for = {transition for transition, rule in TABLE.items() if rule.by != {Actor.SWEEPER}}
    assert {access.transition for access in POLICY.values()} - {None} == asked_for


@pytest.mark.parametrize("method", POLICY)
def test_protos_say_the_same(method):
    """The comment of each RPC names its transition, and whether it changes nothing."""
    comment, access = comments()[method], POLICY[method]
    transitions = re.findall(r"Transition: (\w+)\.", comment)
    assert transitions == ([str(access.transition)] if access.transition else [])
    if "changes nothing" in comment:
        assert access.transition is None
        assert not access.changes
    if access.transition and access.reaches == {Actor.OWNER, Actor.ADMIN}:
        assert "Available to the owner and to admins." in comment


@pytest.mark.parametrize("method", POLICY)
@pytest.mark.parametrize("roles", [[], *([role] for role in Role), list(Role)])
def test_scope_has_no_more_than_the_relations(method, roles):
    """What a principal may touch follows from its roles and the relations of the call."""
    principal = Principal(
        subject="alice", roles=frozenset(roles), credential_id="k", functions=("video.*",)
    )
    access = POLICY[method]
    found = access_filter(principal, access.by)
    assert found.subject == "alice"
    assert found.everything == (Actor.ADMIN in access.by and Role.ADMIN in roles)
    granted = Actor.WORKER in access.by and Role.WORKER in roles
    assert found.functions == (("video.*",) if granted else ())
