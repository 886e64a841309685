"""The audit lines of calls that concern no operation, and of unexpected exceptions."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import grpc
import pytest

from milepost import telemetry
from milepost.access.audit import REDACTED_CHARACTERS
from milepost.access.authenticator import Authenticator
from milepost.access.call import Call
from milepost.access.method import Method
from milepost.api.logged_ids import logged_ids
from milepost.api.streams import _response
from milepost.domain.api_key import issue_key
from milepost.domain.errors import InvalidRequest, Violation
from milepost.domain.operation import OperationId, Principal, Role
from milepost.domain.transitions import Transition
from milepost.gen.milepost.v1 import admin_service_pb2 as pb
from milepost.rpc.call import RpcCall
from milepost.rpc.interceptors.access import AuditInterceptor, AuthInterceptor
from milepost.rpc.interceptors.chain import InterceptedServer
from milepost.rpc.interceptors.errors import Errors
from milepost.rpc.interceptors.observe import Observe
from milepost.storage.api_keys import KeyRing
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.stores import Stores
from milepost.tracking.progress_messages import UpdateError

METHOD = "milepost.v1.AdminService/RevokeApiKey"
KEY_ID = "0123456789abcdef"
ADDRESS = "127.0.0.1:7450"
OUTLIVED = "fedcba9876543210"
"""The id for which a call logs a line after its end."""

Revoke = Callable[[str], Any]


async def _answer(request: pb.RevokeApiKeyRequest, call: RpcCall) -> pb.RevokeApiKeyResponse:
    if request.key_id == OUTLIVED:
        tell = functools.partial(telemetry.record_change, call.principal, {"key_id": "later"})
        asyncio.get_running_loop().call_later(0.1, tell)
    if request.key_id == "defect":
        raise ZeroDivisionError("on purpose")
    if len(request.key_id) != len(KEY_ID):
        raise InvalidRequest(Violation("key_id", "wrong format"))
    return pb.RevokeApiKeyResponse(api_key=pb.ApiKey(key_id=request.key_id))


@pytest.fixture
async def admin(sqlite_url: str) -> AsyncIterator[tuple[str, Revoke]]:
    """The credential id of an admin, and its call to a server behind the real interceptors."""
    batchers = Batchers(open_engine(sqlite_url))
    key, stored = issue_key(subject="root", roles=[Role.ADMIN])
    KeyRing(open_engine(sqlite_url)).add(stored)
    server = grpc.aio.server()
    observe = Observe(telemetry.Tracing(), ADDRESS)
    auth = AuthInterceptor(Authenticator(Stores(batchers).keys))
    chained = InterceptedServer(server, (observe, Errors(), auth, AuditInterceptor()))
    handler = grpc.unary_unary_rpc_method_handler(
        _answer, pb.RevokeApiKeyRequest.FromString, pb.RevokeApiKeyResponse.SerializeToString
    )
    service, _, name = METHOD.partition("/")
    chained.add_registered_method_handlers(service, {name: handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(
            f"/{METHOD}",
            pb.RevokeApiKeyRequest.SerializeToString,
            pb.RevokeApiKeyResponse.FromString,
        )
        header = (("authorization", f"Bearer {key}"),)
        yield (
            stored.principal.credential_id,
            lambda key_id: call(pb.RevokeApiKeyRequest(key_id=key_id), metadata=header, timeout=10),
        )
    await server.stop(0)
    await batchers.close()


def check(line: Mapping[str, Any], credential_id: str) -> None:
    """Check the caller, the method, the peer and the time of the line."""
    assert (line["principal"], line["credential_id"]) == ("root", credential_id)
    assert line["method"] == METHOD
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert len(line["trace_id"]) == 32
    assert line["timestamp"].endswith("Z")


async def test_change_without_an_operation_has_one_line(lines, admin):
    """An admin call with a change has one line with caller, method, id and outcome."""
    credential_id, revoke = admin
    await revoke(KEY_ID)
    (line,) = lines()
    assert (line["event"], line["level"], line["code"]) == ("call answered", "info", "OK")
    assert line["key_id"] == KEY_ID
    check(line, credential_id)


async def test_line_after_the_end_of_a_call_has_the_caller(lines, admin):
    """A line that is written after the end of its call still has the caller."""
    credential_id, revoke = admin
    await revoke(OUTLIVED)
    found = [*lines()]
    while len(found) < 2:
        await asyncio.sleep(0.01)
        found += lines()
    _answered, later = found
    assert later["key_id"] == "later"
    check(later, credential_id)


async def test_refused_change_has_one_line(lines, admin):
    """A refused call has one line, with the first characters of a malformed id."""
    credential_id, revoke = admin
    with pytest.raises(grpc.aio.AioRpcError):
        await revoke("mp_0123456789abcdef_secret")
    (line,) = lines()
    assert (line["event"], line["code"]) == ("call refused", "INVALID_ARGUMENT")
    assert line["reason"] == "INVALID_REQUEST"
    assert line["key_id"] == "mp_012345678…"
    check(line, credential_id)


async def test_defect_has_one_line(lines, admin):
    """An unexpected exception has one line, with the same fields and the traceback."""
    credential_id, revoke = admin
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await revoke("defect")
    (line,) = lines()
    assert (line["event"], line["level"]) == ("call failed", "error")
    assert (line["code"], line["reason"]) == ("INTERNAL", "INTERNAL")
    assert "ZeroDivisionError: on purpose" in line["exception"]
    assert line["trace_id"] in (caught.value.details() or "")
    check(line, credential_id)


def test_defect_of_one_update_has_one_line(lines):
    """An unexpected exception of one update of a stream has one line too."""
    operation_id = f"op_{'0' * 24}"
    call: Any = Call(Method(name="test"), "unix:")
    item = _response(UpdateError(id=operation_id, error=ZeroDivisionError("on purpose")), call)
    (line,) = lines()
    assert (line["event"], line["operation_id"]) == ("call failed", operation_id)
    assert "ZeroDivisionError: on purpose" in line["exception"]
    assert (item.error.operation_id, item.error.reason) == (operation_id, "INTERNAL")
    assert "purpose" not in item.error.message


def test_ids_are_named_by_their_fields():
    """The ids of a line come from fields of the request or the answer; without any it has none."""
    assert logged_ids(pb.RevokeApiKeyRequest(key_id=KEY_ID)) == {"key_id": KEY_ID}
    created = pb.CreateApiKeyResponse(api_key=pb.ApiKey(key_id=KEY_ID))
    assert logged_ids(created) == {"key_id": KEY_ID}
    assert logged_ids(pb.ListApiKeysRequest()) == {}
    assert logged_ids(iter([])) == {}
    assert logged_ids(None) == {}
    huge = logged_ids(pb.RevokeApiKeyRequest(key_id="a" * 10_000))
    assert len(huge["key_id"]) == REDACTED_CHARACTERS + 1


def deletes() -> float:
    """Return the number of counted deletes."""
    labels = {"transition": Transition.PURGE.value}
    return telemetry.registry.get_sample_value("milepost_transitions_total", labels) or 0.0


async def test_change_is_counted_and_logged_when_it_happens(lines):
    """A change is counted at once, and logged in the next loop iteration."""
    before = deletes()
    root = Principal(subject="root", roles=frozenset({Role.ADMIN}), credential_id="r")
    telemetry.record_delete(OperationId(f"op_{'0' * 24}"), None, root, begun=0)
    assert deletes() == before + 1
    await asyncio.sleep(0)
    (line,) = lines()
    assert (line["transition"], line["principal"]) == (Transition.PURGE.value, "root")
