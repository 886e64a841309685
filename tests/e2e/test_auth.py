"""Authentication by credential and authorization by role."""

import itertools
import operator

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from milepost.api.methods import METHODS, PUBLIC
from milepost.domain.api_key import CHECKSUM_LENGTH, _checksum, issue_key
from milepost.domain.operation import Role
from milepost.main.api_keys import revoke_key
from tests.e2e.client import Client
from tests.e2e.matrix import MORE_TRIES
from tests.e2e.refusals import refused
from tests.e2e.rpcs import CALL_SECONDS, RPCS, Metadata, Rpc
from tests.e2e.service import Service

rpcs = pytest.mark.parametrize("rpc", RPCS, ids=operator.attrgetter("method"))


def code(client: Client, rpc: Rpc) -> StatusCode:
    """Return the status code of an empty request, which the database of a busy machine serves."""
    found = StatusCode.UNAVAILABLE
    for _ in range(MORE_TRIES):
        try:
            client.send(rpc, rpc.request())
        except grpc.RpcError as error:
            found = error.code()
        else:
            return StatusCode.OK
        if found is not StatusCode.UNAVAILABLE:
            break
    return found


def well_formed() -> str:
    """A well-formed key that was never issued."""
    key, _ = issue_key(subject="unknown", roles=[Role.ADMIN])
    return key


def other_secret(key: str) -> str:
    """Return a well-formed key with the id of `key` and another secret."""
    body = "_".join((*key.split("_")[:2], well_formed().split("_")[2][:-CHECKSUM_LENGTH]))
    return body + _checksum(body)


@pytest.fixture(scope="module")
def bad_headers(any_service: Service) -> dict[str, Metadata]:
    """Headers without a valid credential, by their defect."""
    key = any_service.api_key("alice")
    revoked = any_service.api_key("alice")
    assert revoke_key(any_service.database_url, revoked.split("_")[1])
    last = "1" if key[-1] == "0" else "0"
    other = any_service.api_key("alice")
    return {
        "no header": (),
        "two keys": (("authorization", f"Bearer {key}"), ("authorization", f"Bearer {other}")),
        "one key twice": (("authorization", f"Bearer {key}"),) * 2,
        "empty one first": (("authorization", ""), ("authorization", f"Bearer {key}")),
        "another scheme last": (("authorization", f"Bearer {key}"), ("authorization", "Basic x")),
        "joined by a proxy": (("authorization", f"Bearer {key}, Bearer {key}"),),
        "empty": (("authorization", ""),),
        "scheme alone": (("authorization", "Bearer"),),
        "no key": (("authorization", "Bearer "),),
        "wrong scheme": (("authorization", f"Basic {key}"),),
        "no scheme": (("authorization", key),),
        "garbage": (("authorization", "Bearer ~!@#$%^&*()"),),
        "long garbage": (("authorization", "Bearer " + "x" * 6_000),),
        "unknown key": (("authorization", f"Bearer {well_formed()}"),),
        "other secret": (("authorization", f"Bearer {other_secret(key)}"),),
        "revoked": (("authorization", f"Bearer {revoked}"),),
        "wrong checksum": (("authorization", f"Bearer {key[:-1]}{last}"),),
        "two spaces": (("authorization", f"Bearer  {key}"),),
        "trailing text": (("authorization", f"Bearer {key}x"),),
        "other header": (("x-api-key", key),),
        "as bytes": (("authorization-bin", f"Bearer {key}".encode()),),
    }


@rpcs
def test_missing_or_bad_credential_is_unauthenticated(any_service, bad_headers, rpc):
    """Without a valid credential every RPC is UNAUTHENTICATED, always with the same message."""
    refusals = set()
    for header in bad_headers.values():
        with refused(StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED") as refusal:
            rpc.send(any_service.channel, rpc.request(), header)
        refusals.add(refusal.status.SerializeToString(deterministic=True))
        assert refusal.message.endswith("send 'authorization: Bearer <API key>'")
    assert len(refusals) == 1


def test_request_is_not_validated_without_a_key(any_service, alice):
    """Without a valid credential a malformed request gets the same answer as a valid one."""
    operation = alice.create()
    get = next(rpc for rpc in RPCS if rpc.method == "GetOperation")
    for operation_id in (operation.id, "invalid-id", ""):
        with refused(StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"):
            get.send(any_service.channel, get.request(operation_id=operation_id), ())


@pytest.fixture(scope="module")
def by_roles(any_service: Service) -> list[Client]:
    """Clients with every single role and every pair of roles."""
    return [
        any_service.client("caller", roles=roles, functions=("*",))
        for size in (1, 2)
        for roles in itertools.combinations(Role, size)
    ]


@rpcs
def test_role_decides_what_may_be_called(by_roles, rpc):
    """A credential without a required role is PERMISSION_DENIED; the refusal names the roles."""
    allowed = rpc.permission.roles
    for client in by_roles:
        if not allowed.isdisjoint(client.roles):
            assert code(client, rpc) in {
                StatusCode.OK,
                StatusCode.INVALID_ARGUMENT,
                StatusCode.NOT_FOUND,  # a caller without a callback URL has no signing secret
            }
            continue
        with refused(StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED") as refusal:
            client.send(rpc, rpc.request())
        assert refusal.facts == {"role": " or ".join(sorted(allowed))}


def test_every_rpc_has_its_roles():
    """The policy lists exactly the RPCs of the protos, each with its roles."""
    assert set(METHODS) == {rpc.name for rpc in RPCS}
    assert all(rpc.permission.roles for rpc in RPCS)


def test_served_are_the_services_of_the_protos(any_service):
    """The port serves exactly the services of the protos, health and reflection."""
    stub = reflection_pb2_grpc.ServerReflectionStub(any_service.channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([ask]), timeout=CALL_SECONDS)
    served = {service.name for service in answer.list_services_response.service}
    ours = {rpc.name.partition("/")[0] for rpc in RPCS}
    public = {method.name.partition("/")[0] for method in PUBLIC}
    assert served == ours | public | {"grpc.reflection.v1alpha.ServerReflection"}


def test_health_needs_no_key(any_service):
    """Health answers without a credential, for the server and for each service."""
    stub = health_pb2_grpc.HealthStub(any_service.channel)
    for service in ("", "milepost.v1.OperationService", "milepost.v1.WorkerService"):
        request = health_pb2.HealthCheckRequest(service=service)
        response = stub.Check(request, timeout=CALL_SECONDS)
        assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_unknown_method_is_unimplemented(alice):
    """An unknown method is UNIMPLEMENTED."""
    for path in ("/milepost.v1.OperationService/Explode", "/unknown.v1.Nothing/Here"):
        call = alice.channel.unary_unary(path)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", metadata=alice.metadata, timeout=CALL_SECONDS)
        assert caught.value.code() is StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_scheme_is_in_any_letter_case(any_service, scheme):
    """The authentication scheme is case-insensitive (RFC 9110)."""
    client = any_service.client("alice")
    client.metadata = (("authorization", f"{scheme} {client.key}"),)
    assert client.create().owner == client.subject


def test_subject_may_have_many_keys(any_service, alice):
    """Two keys of one subject own the same operations."""
    operation = alice.create()
    other = any_service.client("alice")
    key = any_service.api_key(alice.subject)
    other.metadata = (("authorization", f"Bearer {key}"),)
    assert other.get(operation.id) == operation


@pytest.mark.parametrize(
    "rpc",
    [rpc for rpc in RPCS if rpc.shape == "unary_unary"],
    ids=operator.attrgetter("method"),
)
def test_undecodable_message_is_refused(any_service, rpc):
    """An undecodable message is INVALID_ARGUMENT, or UNAUTHENTICATED without a credential."""
    client = any_service.client("all", roles=tuple(Role), functions=("*",))
    call = client.channel.unary_unary(f"/{rpc.name}")
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        call(b"\xff\xff\xff", metadata=client.metadata, timeout=CALL_SECONDS)
    assert set(refusal.violations) == {"request"}
    with refused(StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"):
        call(b"\xff\xff\xff", timeout=CALL_SECONDS)
