"""Tokens of an issuer, with a real service and a real key endpoint."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

from tests.e2e.client import Client
from tests.e2e.commands import USAGE, milepost
from tests.e2e.refusals import refused
from tests.e2e.service import Service
from tests.unit.signing import AUDIENCE, ISSUER, KEYS, Endpoint, claims, key_set, rsa_key, token
from tests.unit.test_tokens import FORGED

FILE_ISSUER = "https://file.example"


@contextmanager
def endpoint_in_background() -> Iterator[Endpoint]:
    """Run a key endpoint on an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def begin() -> Endpoint:
        return await Endpoint().__aenter__()

    endpoint = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
    try:
        yield endpoint
    finally:
        asyncio.run_coroutine_threadsafe(endpoint.__aexit__(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    """The key endpoint of the issuer."""
    with endpoint_in_background() as endpoint:
        yield endpoint


def web_issuer(endpoint: Endpoint) -> dict[str, Any]:
    """Return the setting of an issuer whose keys are at the endpoint."""
    return {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "algorithms": ["RS256", "ES256"],
        "jwks_url": endpoint.url,
        "subject_prefix": "web:",
    }


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Iterator[Service]:
    """A service that trusts two issuers, one by address and one by file."""
    folder = tmp_path_factory.mktemp("jwt")
    keys = folder / "keys.json"
    keys.write_text(json.dumps(key_set(EdDSA=KEYS["EdDSA"])), encoding="utf-8")
    issuers = [
        web_issuer(endpoint),
        {
            "issuer": FILE_ISSUER,
            "audience": AUDIENCE,
            "algorithms": ["EdDSA"],
            "jwks_file": str(keys),
            "subject_prefix": "file:",
        },
    ]
    with Service(
        f"sqlite:///{folder}/jwt.db", folder, jwt_issuers=json.dumps(issuers), log_level="debug"
    ) as service:
        yield service


def holder(service: Service, text: str) -> Client:
    """Return a client with a token."""
    return Client(service.channel, "holder", frozenset(), text)


def now_claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a token that is valid now."""
    return claims(time.time(), **changes)


def test_token_authenticates_its_subject(trusting):
    """Tokens of both issuers are accepted beside API keys, each with its own subjects."""
    alice = holder(trusting, token(now_claims(jti="t-1")))
    operation = alice.create()
    assert operation.owner == "web:alice"
    same = holder(trusting, token(now_claims(), algorithm="ES256"))
    assert same.get(operation.id) == operation
    by_file = holder(trusting, token(now_claims(iss=FILE_ISSUER), algorithm="EdDSA"))
    assert by_file.create().owner == "file:alice"
    for stranger in (by_file, trusting.client("alice")):
        with refused(StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND"):
            stranger.get(operation.id)
    line = trusting.logged(event="operation changed", operation_id=operation.id)
    assert line["credential_id"] == f"{ISSUER} t-1"


def test_roles_and_grants_come_from_the_token(trusting):
    """A token limits a worker to the functions that it names."""
    operation = holder(trusting, token(now_claims())).create(function="video.transcode")
    worker = holder(
        trusting, token(now_claims(sub="wally", roles=["worker"], functions=["video.*"]))
    )
    assert worker.transition("StartOperation", operation.id).worker == "web:wally"
    with refused(StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"):
        worker.create()
    other = holder(
        trusting, token(now_claims(sub="wally", roles=["worker"], functions=["audio.*"]))
    )
    with refused(StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND"):
        other.transition("CompleteOperation", operation.id)


def test_every_refusal_is_identical(trusting):
    """Every invalid token gets the same answer to the byte, and no token is logged."""
    refusals, sent = set(), []
    bad = [make() for make in FORGED.values()]  # all of them have other times, too
    bad += [
        token(now_claims(), key=rsa_key()),
        token(now_claims(aud="other")),
        token(now_claims(iss=FILE_ISSUER)),
        token(now_claims(), algorithm="EdDSA"),
        token(claims(time.time() - 3_600)),
        "mp_nonsense",
    ]
    for text in bad:
        if not text.isprintable() or len(text) > 10_000:  # gRPC itself does not send these
            continue
        with refused(StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED") as refusal:
            holder(trusting, text).call("ListOperations")
        assert refusal.message.endswith("send 'authorization: Bearer <API key or token>'")
        refusals.add(refusal.status.SerializeToString(deterministic=True))
        sent.append(text)
    assert len(sent) >= 60
    assert len(refusals) == 1
    log = trusting.log()
    assert "token refused" in log
    assert not [text for text in sent if len(text) > 40 and text in log]


def test_outage_of_the_endpoint_refuses_no_known_key(trusting, endpoint):
    """While the endpoint fails, tokens of known keys are accepted, and invalid ones refused."""
    assert holder(trusting, token(now_claims())).create().revision == 1
    endpoint.status = 503
    try:
        assert holder(trusting, token(now_claims(jti="during"))).create().revision == 1
        with refused(StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"):
            holder(trusting, token(now_claims(), kid="unknown")).create()
    finally:
        endpoint.status = 200


def test_without_keys_of_the_issuer_the_call_is_unavailable(tmp_path: Path, endpoint):
    """A service that never loaded the issuer's keys answers UNAVAILABLE."""
    issuer = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "algorithms": ["RS256"],
        "jwks_url": endpoint.base + "/nothing-here",
    }
    with Service(
        f"sqlite:///{tmp_path}/x.db", tmp_path, jwt_issuers=json.dumps([issuer])
    ) as service:
        with refused(StatusCode.UNAVAILABLE, "IDENTITY_PROVIDER_UNAVAILABLE"):
            holder(service, token(now_claims())).create()
        assert (
            service.client("alice").create().revision == 1
        )  # the API key is independent of the issuer
        service.logged(event="keys of the issuer not fetched")


def test_keys_have_no_subject_of_an_issuer(trusting, endpoint):
    """Neither the API nor the command line creates a key for a subject of a trusted issuer."""
    admin = trusting.client("root", roles=("ADMIN",))
    for subject in ("web:alice", "WEB:alice", "file:alice"):
        with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
            admin.call("CreateApiKey", subject=subject, roles=["ROLE_CALLER"])
        assert set(refusal.violations) == {"subject"}
    imitation = Client(trusting.channel, "web:alice", frozenset(), trusting.api_key("web:alice"))
    with refused(StatusCode.UNAUTHENTICATED):
        imitation.call("ListOperations")
    done = milepost(
        *("keys", "create", "--subject", "web:alice", "--role", "caller"),
        MILEPOST_DATABASE_URL=trusting.database_url,
        MILEPOST_JWT_ISSUERS=json.dumps([web_issuer(endpoint)]),
    )
    assert (done.code, done.out) == (USAGE, "")
    assert "must not begin like the subjects of a trusted issuer" in done.err
