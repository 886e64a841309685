"""API keys from their creation to their revocation, over the API and the command line."""

import functools
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from milepost.gen.milepost.v1 import admin_service_pb2 as pb
from tests.e2e.client import Client
from tests.e2e.commands import NOT_FOUND, OK, milepost
from tests.e2e.refusals import refused
from tests.e2e.service import Service
from tests.waiting import eventually

REVOKED_S = 5.0
"""Time within which every replica refuses a revoked or expired key."""


def with_key(service: Service, key: str) -> Client:
    """Return a client with this key."""
    return Client(service.channel, "holder", frozenset(), key)


def is_refused(client: Client) -> bool:
    """Return True if the service refuses the key."""
    try:
        client.call("ListOperations")
    except Exception as error:  # noqa: BLE001 - of grpc; any other has no such code
        return getattr(error, "code", lambda: None)() is StatusCode.UNAUTHENTICATED
    return False


def timestamp(time: datetime) -> Timestamp:
    """Return the time as a message."""
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


@pytest.fixture
def replica(any_service: Service, tmp_path: Path) -> Iterator[Service]:
    """Another replica on the same PostgreSQL; the embedded store has only one process."""
    if any_service.database_url.startswith("sqlite"):
        yield any_service
        return
    with Service(any_service.database_url, tmp_path) as replica:
        yield replica


def test_key_is_created_listed_and_revoked_over_the_api(any_service, replica, admin, alice):
    """A created key works on every replica, is listed, and is refused 5 s after its revocation."""
    created = admin.call(
        "CreateApiKey",
        subject=alice.subject,
        roles=[pb.ROLE_CALLER, pb.ROLE_WORKER],
        functions=["video.*"],
    )
    key = created.api_key
    assert created.secret.startswith(f"mp_{key.key_id}_")
    assert (key.subject, list(key.roles)) == (alice.subject, [pb.ROLE_CALLER, pb.ROLE_WORKER])
    assert not key.HasField("expire_time")
    clients = [with_key(found, created.secret) for found in (any_service, replica)]
    operation = clients[0].create()
    assert operation.owner == alice.subject
    assert clients[1].get(operation.id) == operation

    listed = admin.call("ListApiKeys", subject=alice.subject).api_keys
    assert [found.key_id for found in listed] == [key.key_id, alice.key.split("_")[1]]

    revoked = admin.call("RevokeApiKey", key_id=key.key_id).api_key
    assert revoked.HasField("revoke_time")
    assert admin.call("RevokeApiKey", key_id=key.key_id).api_key == revoked
    deadline = time.monotonic() + REVOKED_S
    for client in clients:
        left = deadline - time.monotonic()
        eventually(functools.partial(is_refused, client), within=left, what="revoked")
    assert alice.get(operation.id) == operation  # operations belong to the subject, not to its key

    listed = admin.call("ListApiKeys", subject=alice.subject).api_keys
    assert key.key_id not in {found.key_id for found in listed}
    everything = admin.call("ListApiKeys", subject=alice.subject, show_inactive=True).api_keys
    assert revoked.key_id in {found.key_id for found in everything}
    assert created.secret not in any_service.log()
    for method in ("CreateApiKey", "RevokeApiKey"):
        name = f"milepost.v1.AdminService/{method}"
        line, *others = any_service.log_lines(event="call answered", method=name, key_id=key.key_id)
        assert (line["principal"], line["subject"]) == (admin.subject, alice.subject)
        assert (line["roles"], line["functions"]) == ("CALLER WORKER", "video.*")
        assert len(others) == (method == "RevokeApiKey")  # the repeated create


def test_create_can_be_repeated_but_not_the_secret(admin):
    """A repeated create of a key returns the same key without its secret."""
    fields: dict[str, Any] = {"request_id": "once", "subject": "repeated", "roles": ["ROLE_CALLER"]}
    first = admin.call("CreateApiKey", **fields)
    again = admin.call("CreateApiKey", **fields)
    assert (first.replayed, again.replayed) == (False, True)
    assert again.api_key == first.api_key
    assert first.HasField("secret")
    assert not again.HasField("secret")
    with refused(StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        admin.call("CreateApiKey", **{**fields, "subject": "other"})


def test_rotation_has_two_keys_at_once(any_service, admin):
    """Two keys of one subject work at the same time, until the old one is revoked."""
    old, new = (
        admin.call("CreateApiKey", subject="rotated", roles=[pb.ROLE_CALLER]) for _ in range(2)
    )
    before, after = (with_key(any_service, created.secret) for created in (old, new))
    operation = before.create()
    assert after.get(operation.id) == operation
    admin.call("RevokeApiKey", key_id=old.api_key.key_id)
    eventually(lambda: is_refused(before), within=REVOKED_S, what="the old key is refused")
    assert after.get(operation.id) == operation


def test_key_ends_at_its_time(any_service, admin):
    """A key works until its expire_time, and is refused within 5 s of it."""
    end = datetime.now(UTC) + timedelta(seconds=2)
    created = admin.call(
        "CreateApiKey", subject="brief", roles=[pb.ROLE_CALLER], expire_time=timestamp(end)
    )
    client = with_key(any_service, created.secret)
    assert client.create().owner == "brief"
    eventually(lambda: is_refused(client), within=2 + REVOKED_S, what="expired")
    assert datetime.now(UTC) >= end
    assert not admin.call("ListApiKeys", subject="brief").api_keys


def test_last_use_is_noted(any_service, admin):
    """The list shows the last use of a key some seconds later."""
    created = admin.call("CreateApiKey", subject="used", roles=[pb.ROLE_CALLER])
    assert not created.api_key.HasField("last_used_time")
    with_key(any_service, created.secret).create()

    def last_used() -> Any:
        [key] = admin.call("ListApiKeys", subject="used").api_keys
        return key.last_used_time if key.HasField("last_used_time") else None

    noted = eventually(last_used, within=15, what="the use is noted")
    assert noted.ToDatetime(tzinfo=UTC) >= created.api_key.create_time.ToDatetime(tzinfo=UTC)


def test_pages_of_keys(admin):
    """The pages of the list do not overlap, and the last one has an empty token."""
    made = {
        admin.call("CreateApiKey", subject="paged", roles=[pb.ROLE_CALLER]).api_key.key_id
        for _ in range(5)
    }
    found: list[str] = []
    token = ""
    for _ in range(3):
        page = admin.call("ListApiKeys", subject="paged", page_size=2, page_token=token)
        found += [key.key_id for key in page.api_keys]
        token = page.next_page_token
    assert (set(found), len(found), token) == (made, 5, "")
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        admin.call("ListApiKeys", page_token="nonsense")  # noqa: S106 - of a page
    assert set(refusal.violations) == {"page_token"}


BAD: dict[str, tuple[dict[str, Any], set[str]]] = {
    "no subject": ({"subject": ""}, {"subject"}),
    "blank subject": ({"subject": " "}, {"subject"}),
    "padded subject": ({"subject": "alice "}, {"subject"}),
    "invisible subject": ({"subject": "ali\u200bce"}, {"subject"}),
    "subject with a direction": ({"subject": "\u202eecila"}, {"subject"}),
    "long subject": ({"subject": "a" * 256}, {"subject"}),
    "no role": ({"roles": []}, {"roles"}),
    "unknown roles": ({"roles": [0, 9]}, {"roles[0]", "roles[1]"}),
    "worker without functions": ({"roles": [pb.ROLE_WORKER]}, {"functions"}),
    "functions without worker": ({"functions": ["video.*"]}, {"functions"}),
    "two stars": ({"roles": [pb.ROLE_WORKER], "functions": ["a*b"]}, {"functions[0]"}),
    "spaces": ({"roles": [pb.ROLE_WORKER], "functions": ["ok", "a b"]}, {"functions[1]"}),
    "too many": ({"roles": [pb.ROLE_WORKER], "functions": ["a"] * 101}, {"functions"}),
    "past": ({"expire_time": timestamp(datetime(2020, 1, 1, tzinfo=UTC))}, {"expire_time"}),
    "bad time": ({"expire_time": Timestamp(nanos=-1)}, {"expire_time"}),
    "request_id": ({"request_id": "a b"}, {"request_id"}),
    "several": ({"subject": "", "roles": [], "request_id": ""}, {"subject", "roles", "request_id"}),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_keys_are_refused(admin, name):
    """A malformed key is refused with every wrong field, and nothing is stored."""
    fields, wrong = BAD[name]
    good: dict[str, Any] = {"subject": f"bad {name}", "roles": [pb.ROLE_CALLER]}
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        admin.call("CreateApiKey", **{**good, **fields})
    assert set(refusal.violations) == wrong
    assert not admin.call("ListApiKeys", subject=good["subject"], show_inactive=True).api_keys


def test_wrong_ids_cannot_be_revoked(admin, alice):
    """An unknown id is NOT_FOUND; a malformed id is not echoed, because it may be a secret."""
    with refused(StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND") as refusal:
        admin.call("RevokeApiKey", key_id="0" * 16)
    assert refusal.facts == {"key_id": "0" * 16}
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        admin.call("RevokeApiKey", key_id=alice.key)
    assert alice.key not in refusal.message


def test_keys_of_the_command_line_and_of_the_api_are_the_same(any_service, admin):
    """A key of the command line is used, listed, revoked and expires like a key of the API."""
    here = {"MILEPOST_DATABASE_URL": any_service.database_url}
    words = ("keys", "create", "--subject", "cli", "--role", "caller", "--expires-in", "90d")
    created = milepost(*words, "--output", "json", **here)
    assert created.code == OK
    key_id = created.json["key_id"]
    [key] = admin.call("ListApiKeys", subject="cli").api_keys
    assert key.key_id == key_id
    life = key.expire_time.ToDatetime() - key.create_time.ToDatetime()
    assert life == timedelta(days=90)
    client = with_key(any_service, created.json["secret"])
    assert client.create().owner == "cli"

    def used() -> bool:
        [key] = admin.call("ListApiKeys", subject="cli").api_keys
        return bool(key.HasField("last_used_time"))

    eventually(used, within=15, what="the use is noted")
    keys = milepost("keys", "list", "--output", "json", **here).json["keys"]
    assert next(key for key in keys if key["key_id"] == key_id)["last_used_time"]
    assert milepost("keys", "revoke", key_id, **here).code == OK
    eventually(lambda: is_refused(client), within=REVOKED_S, what="revoked")
    assert milepost("keys", "revoke", "0" * 16, **here).code == NOT_FOUND
