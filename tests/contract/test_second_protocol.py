"""A second protocol gets authentication, policy, limits, audit and errors from `access` alone."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from milepost import telemetry
from milepost.access.admission import Admission
from milepost.access.authenticator import Authenticator
from milepost.access.checks import AccessChecks
from milepost.access.rate_limits import RateLimits
from milepost.access.token_buckets import LocalBuckets
from milepost.domain.api_key import issue_key
from milepost.domain.limits import Limits
from milepost.domain.operation import Role, new_operation_id
from milepost.domain.rates import Allowance, Allowances
from milepost.storage.api_keys import KeyRing
from milepost.tracking.claimer import PendingWork
from milepost.tracking.committer import Committer
from milepost.tracking.page_tokens import PageTokens
from milepost.tracking.subscriptions import Subscriptions
from milepost.tracking.tracker import Tracker
from tests.contract.http_protocol import HttpProtocol

CREATES = 3
FAILURES = 2


class Http:
    """The protocol over the stores, and calls to it."""

    def __init__(self, client: TestClient[Any, Any], ring: KeyRing, checks: AccessChecks) -> None:
        self._client = client
        self._ring = ring
        self.checks = checks

    def key(self, subject: str, *roles: Role) -> str:
        """Return a valid API key."""
        key, stored = issue_key(subject=subject, roles=roles or [Role.CALLER])
        self._ring.add(stored)
        return key

    async def call(self, key: str | None, verb: str, path: str = "") -> tuple[int, Any]:
        """Return the status and the body of the response."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        body = {"function": "video.transcode"} if verb == "POST" else None
        async with self._client.request(
            verb, f"/operations{path}", headers=headers, json=body
        ) as response:
            return response.status, await response.json()

    async def create(self, key: str) -> str:
        """Return the id of a new operation."""
        status, body = await self.call(key, "POST")
        assert (status, body["status"]) == (200, "PENDING")
        created: str = body["id"]
        return created


@pytest.fixture
async def http(engine, stores) -> AsyncIterator[Http]:
    """The protocol, served over a fresh database."""
    checks = AccessChecks(
        admission=Admission(),
        authenticator=Authenticator(stores.keys, failures_per_minute=FAILURES),
        rate_limits=RateLimits(
            LocalBuckets(), Allowances(default=Allowance(creates=CREATES, active=100))
        ),
    )
    work = PendingWork(stores.work)
    tracker = Tracker(
        stores.operations,
        Committer(stores.operations, Subscriptions(), work),
        limits=Limits(),
        page_tokens=PageTokens(secrets.token_bytes(32)),
        work=work,
        allowances=Allowances(default=Allowance(active=100)),
    )
    app = HttpProtocol(tracker, checks, telemetry.Tracing()).app()
    async with TestClient(TestServer(app)) as client:
        yield Http(client, KeyRing(engine), checks)


async def test_caller_is_authenticated(http):
    """A valid key authenticates its subject; a missing or unknown key is refused."""
    alice = http.key("alice")
    operation_id = await http.create(alice)
    status, body = await http.call(alice, "GET", f"/{operation_id}")
    assert (status, body["id"]) == (200, operation_id)
    for stranger in (None, issue_key(subject="mallory", roles=[Role.ADMIN])[0]):
        status, body = await http.call(stranger, "GET", f"/{operation_id}")
        assert (status, body["reason"]) == (401, "UNAUTHENTICATED")


async def test_bad_credentials_are_limited(http):
    """After too many bad credentials, calls of an address are refused without a check."""
    codes = [(await http.call("bad", "POST"))[0] for _ in range(FAILURES + 1)]
    assert codes == [401] * FAILURES + [429]


async def test_policy_decides(http):
    """The policy of the use case applies; an operation of another owner is not found."""
    operation_id = await http.create(http.key("alice"))
    for path in (operation_id, new_operation_id()):
        status, body = await http.call(http.key("bob"), "GET", f"/{path}")
        assert (status, body["reason"]) == (404, "OPERATION_NOT_FOUND")
    status, body = await http.call(http.key("root", Role.ADMIN), "POST")
    assert (status, body["reason"]) == (403, "PERMISSION_DENIED")
    assert (await http.call(http.key("root", Role.ADMIN), "GET", f"/{operation_id}"))[0] == 200


async def test_method_without_a_use_case_is_refused(http):
    """A method without a use case is refused, whatever the roles."""
    status, body = await http.call(http.key("root", *Role), "DELETE", f"/{new_operation_id()}")
    assert (status, body["reason"]) == (403, "PERMISSION_DENIED")


async def test_rates_are_limited(http):
    """Creates beyond their rate are refused; reads have their own rate."""
    alice = http.key("alice")
    ids = [await http.create(alice) for _ in range(CREATES)]
    status, body = await http.call(alice, "POST")
    assert (status, body["reason"]) == (429, "RATE_LIMITED")
    assert (await http.call(alice, "GET", f"/{ids[0]}"))[0] == 200


async def test_draining_replica_takes_no_calls(http):
    """A closed admission refuses calls of this protocol."""
    http.checks.admission.close()
    status, body = await http.call(http.key("alice"), "POST")
    assert (status, body["reason"]) == (503, "DRAINING")


async def test_calls_are_audited(http, lines):
    """Transitions, audited calls and refusals have one log line each; invalid ids are redacted."""
    operation_id = await http.create(http.key("alice"))
    await http.call(http.key("root", Role.ADMIN), "GET", f"/{operation_id}")
    await http.call(http.key("bob"), "GET", f"/{operation_id}")
    await http.call(http.key("bob"), "GET", "/mp_0123456789abcdef_secret")
    found = [
        (line["event"], line["principal"], line["method"], line["code"], line["operation_id"])
        for line in lines()
    ]
    assert found == [
        ("operation changed", "alice", "POST /operations", "OK", operation_id),
        ("call answered", "root", "GET /operations/{id}", "OK", operation_id),
        ("call refused", "bob", "GET /operations/{id}", "404", operation_id),
        ("call refused", "bob", "GET /operations/{id}", "404", "mp_012345678…"),
    ]
