"""Calls that send secrets to a service in every field that can hold one."""

import base64
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2, struct_pb2

from milepost.domain.api_key import issue_key
from milepost.domain.operation import Role, new_operation_id
from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.canaries import CANARIES
from tests.e2e import matrix
from tests.e2e.client import FUNCTION, Client
from tests.e2e.http.exchange import http_of
from tests.e2e.http.protocol import HTTP_RPCS, url_of
from tests.e2e.rpcs import RPCS
from tests.e2e.service import Service


def send_secrets(service: Service) -> None:
    """Send the service every kind of secret, a new one in each place."""
    alice = service.client("alice")
    _ask_as_strangers(service, _payloads(alice))
    _refused_payloads(alice)
    _wrong_credentials(service)
    _out_of_place(alice)
    CANARIES.saw("a page of metrics", service.probe("/metrics")[1])


def _struct() -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    name, value = CANARIES.fresh("name in metadata"), CANARIES.fresh("value in metadata")
    struct.update({name: {"deep": [value, 1]}})
    return struct


def _result() -> any_pb2.Any:
    return _packed("result")


def _packed(what: str) -> any_pb2.Any:
    value = struct_pb2.Value(string_value=CANARIES.fresh(what))
    return any_pb2.Any(
        type_url=f"example.com/{CANARIES.fresh(f'type of a {what}')}",
        value=value.SerializeToString(),
    )


def _error() -> pb.OperationError:
    return pb.OperationError(
        code=CANARIES.fresh("code of an error"),
        message=CANARIES.fresh("message of an error"),
        source=CANARIES.fresh("source of an error"),
        details=_struct(),
    )


def _payloads(alice: Client) -> list[str]:
    """Store a payload in every field; return the ids of the operations."""
    done = alice.create(metadata=_struct())
    alice.transition("StartOperation", done.id)
    alice.transition("UpdateProgress", done.id, message=CANARIES.fresh("progress message"))
    alice.transition("UpdateProgress", done.id, checkpoint=_packed("checkpoint"))
    alice.transition("CompleteOperation", done.id, result=_result())
    retried = alice.create_in("PROCESSING")
    alice.transition("FailOperation", retried.id, errors=[_error()], retryable=True)
    stopped = alice.create_in("PROCESSING")
    reason = CANARIES.fresh("reason of a request to cancel")
    minute = duration_pb2.Duration(seconds=60)
    alice.transition("CancelOperation", stopped.id, reason=reason, grace=minute)
    failed = alice.create(metadata=_struct())
    alice.transition("FailOperation", failed.id, errors=[_error()])
    released = alice.create_in("PROCESSING")
    alice.transition("ReleaseOperation", released.id, reason=CANARIES.fresh("reason of a release"))
    cancelled = alice.create()
    alice.transition("CancelOperation", cancelled.id, reason=CANARIES.fresh("reason of a cancel"))
    return [each.id for each in (done, retried, stopped, failed, released, cancelled)]


def _ask_as_strangers(service: Service, ids: list[str]) -> None:
    """Record what other owners and workers get, over every protocol, about these operations."""
    for stranger in (
        service.client("bob"),
        service.client("wendy", roles=("WORKER",), functions=("audio.*",)),
    ):
        http = http_of(service, stranger)
        for rpc in RPCS:
            for operation_id in ids if rpc.takes_id else ids[:1]:
                named = {"operation_id": operation_id} if rpc.takes_id else {}
                request = matrix.complete(rpc, FUNCTION, **named)
                answer = _try(stranger.send, rpc, request)
                if answer is not None:
                    CANARIES.saw("an answer to a stranger", answer.SerializeToString())
                if rpc in HTTP_RPCS:
                    CANARIES.saw("an answer to a stranger", http(*url_of(rpc, request)).body)
        http.close()


def _refused_payloads(alice: Client) -> None:
    done = alice.create_in("COMPLETED")
    for operation_id in (done.id, new_operation_id(), "no-id"):
        for method, fields in (
            ("CompleteOperation", {"result": _result()}),
            ("FailOperation", {"errors": [_error()]}),
            ("UpdateProgress", {"message": CANARIES.fresh("refused progress message")}),
            ("UpdateProgress", {"checkpoint": _packed("refused checkpoint")}),
            ("CancelOperation", {"reason": CANARIES.fresh("refused reason")}),
            ("ReleaseOperation", {"reason": CANARIES.fresh("refused reason of a release")}),
        ):
            _try(alice.transition, method, operation_id, **fields)
    query = CANARIES.fresh("query of a callback URL")
    _try(alice.create, callback_url=f"https://example.com/hook?token={query}")
    _try(alice.create, callback_url=f"https://user:{query}@localhost/hook?token={query}")
    _try(alice.create, metadata=_struct(), version="\n", request_id="no request id")
    _try(alice.create, request_id="once", metadata=_struct())
    _try(alice.create, request_id="once", metadata=_struct())


def _wrong_credentials(service: Service) -> None:
    unknown = issue_key(subject="mallory", roles=list(Role))[0]
    CANARIES.guard("unknown API key", unknown.split("_")[2])
    password = CANARIES.fresh("password of another scheme")
    basic = base64.b64encode(f"user:{password}".encode()).decode()
    for header, value in (
        ("authorization", f"Bearer {unknown}"),
        ("authorization", f"Bearer {CANARIES.fresh('malformed token')}"),
        ("authorization", f"Basic {basic}"),
        ("authorization", CANARIES.fresh("token without a scheme")),
        ("x-api-key", CANARIES.fresh("token in another header")),
        ("cookie", f"session={CANARIES.fresh('cookie')}"),
    ):
        stranger = Client(service.channel, "unknown", frozenset(), "")
        stranger.metadata = ((header, value), ("traceparent", f"00-{CANARIES.fresh('trace')}-1-01"))
        for rpc in RPCS:
            _try(stranger.send, rpc, rpc.request())


def _out_of_place(alice: Client) -> None:
    """Send keys and tokens in fields of other values."""
    for method, field in (
        ("GetOperation", "operation_id"),
        ("ListOperations", "page_token"),
        ("GoogleGetOperation", "name"),
        ("GoogleWaitOperation", "name"),
        ("GoogleListOperations", "name"),
        ("GoogleListOperations", "filter"),
        ("GoogleListOperations", "page_token"),
        ("RevokeApiKey", "key_id"),
        ("RedeliverWebhook", "delivery_id"),
    ):
        _try(alice.call, method, **{field: alice.key})
        _try(alice.call, method, **{field: CANARIES.fresh(f"secret sent as {field}")})
    _try(alice.create, function=FUNCTION + "\n" + CANARIES.fresh("second line of a function"))


def _try(call: Callable[..., Any], *arguments: Any, **fields: Any) -> Any:
    """Return the answer of a call; record the refusal, if there is one, and return None."""
    try:
        return call(*arguments, **fields)
    except grpc.RpcError as error:
        CANARIES.saw_error(error)
        return None
