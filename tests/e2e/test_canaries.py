"""Secrets in requests never leave the service, over any protocol."""

from grpc import StatusCode

from milepost.domain.operation import new_operation_id
from tests.canaries import CANARIES
from tests.e2e.http.secret_requests import send_secrets_over_http
from tests.e2e.refusals import refused
from tests.e2e.secret_requests import send_secrets


def test_no_secret_gets_out(any_service, alice):
    """No key, token, password or payload is in a log, a metric, an error, or a stranger's answer.

    Neither in plain text, nor in base64, nor in hexadecimal. The same is checked after the whole
    session, of all services, and of spans too (`tests/conftest.py`).
    """
    send_secrets(any_service)
    send_secrets_over_http(any_service)
    last = new_operation_id()
    with refused(StatusCode.NOT_FOUND):
        alice.get(last)
    any_service.logged(operation_id=last)
    assert CANARIES.leaks() == []
