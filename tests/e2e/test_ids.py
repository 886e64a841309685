"""Malformed ids, at every RPC about one operation."""

import pytest
from grpc import StatusCode

from milepost.domain.operation import ID_LENGTH
from tests.e2e.client import Client
from tests.e2e.refusals import refused
from tests.e2e.rpcs import ABOUT_ONE
from tests.e2e.service import Service

VALID = "op_0123456789abcdef01234567"
rpcs = pytest.mark.parametrize("rpc", ABOUT_ONE, ids=lambda rpc: rpc.method)


@pytest.fixture(scope="module")
def both(any_service: Service) -> Client:
    """A client that is caller and worker."""
    return any_service.client("both", roles=("CALLER", "WORKER"), functions=("*",))


@rpcs
@pytest.mark.parametrize(
    "operation_id",
    [
        pytest.param("", id="empty"),
        pytest.param("invalid-id", id="invalid-id"),
        pytest.param("invalid-format", id="invalid-format"),
        pytest.param(VALID[:-1], id="26"),
        pytest.param(VALID + "0", id="28"),
        pytest.param(VALID + "\n", id="newline"),
        pytest.param("x" * 100_000, id="huge"),
    ],
)
def test_wrong_length_is_named(both, rpc, operation_id):
    """An id of the wrong length is refused with the expected and the actual length."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        both.send(rpc, rpc.about(operation_id))
    problem = refusal.violations[rpc.id_field]
    assert "wrong format" in problem
    assert f"expected {ID_LENGTH} characters, found {len(operation_id)}" in problem
    assert set(refusal.violations) == {rpc.id_field}


@rpcs
@pytest.mark.parametrize(
    "operation_id",
    [
        pytest.param("xx_" + VALID[3:], id="prefix"),
        pytest.param("OP_" + VALID[3:], id="upper-prefix"),
        pytest.param(VALID.replace("a", "g"), id="no-hex"),
        pytest.param(VALID.replace("a", "A"), id="upper-hex"),
        pytest.param(VALID[:-1] + "\n", id="newline"),
        pytest.param(VALID[:-1] + "\u0661", id="other-digit"),
    ],
)
def test_wrong_form_is_refused(both, rpc, operation_id):
    """An id of the right length that does not match the pattern is refused."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        both.send(rpc, rpc.about(operation_id))
    assert set(refusal.violations) == {rpc.id_field}
    assert "wrong format" in refusal.violations[rpc.id_field]


@rpcs
def test_every_field_of_a_request_is_checked_at_once(both, rpc):
    """A malformed id is reported together with all other violations."""
    wrong = {
        "request_id": "not allowed",
        "expected_revision": 0,
        "attempt": -1,
        "progress": float("nan"),
        "message": "x" * 1001,
        "worker": " ",
        "reason": "",
    }
    fields = rpc.request.DESCRIPTOR.fields_by_name
    given = {name: value for name, value in wrong.items() if name in fields}
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        both.send(rpc, rpc.about("invalid-id", **given))
    assert set(refusal.violations) == {rpc.id_field, *given}
