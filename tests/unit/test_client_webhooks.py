"""The verifier for receivers."""

import base64
import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from milepost.webhooks.signing import signed_headers
from milepost_client.webhooks import NotVerified, verify

KEY = os.urandom(32)
OTHER = os.urandom(32)
BODY = json.dumps({"type": "operation.completed", "data": {"a": "ü"}}).encode()


def text(key):
    """The text of a secret."""
    return "whsec_" + base64.b64encode(key).decode()


def headers(*keys, age=timedelta(), **overrides):
    """Signed headers of this age, some of them replaced or removed."""
    signed = signed_headers(keys or (KEY,), "msg_1", datetime.now(UTC) - age, BODY)
    found = {name: overrides.get(name.replace("-", "_"), value) for name, value in signed.items()}
    return {name.title(): value for name, value in found.items() if value}


def test_good_webhook_is_verified():
    """A good webhook is verified, whatever the case of its headers."""
    assert verify(BODY, headers(), text(KEY)) == json.loads(BODY)


def test_either_secret_is_enough():
    """During a rotation one matching signature is enough, on either side."""
    assert verify(BODY, headers(OTHER, KEY), text(KEY))
    assert verify(BODY, headers(KEY), [text(OTHER), text(KEY)])


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook_id": "msg_2"},
        {"webhook_id": None},
        {"webhook_timestamp": None},
        {"webhook_timestamp": "1e9"},
        {"webhook_signature": None},
        {"webhook_signature": ""},
        {"webhook_signature": "v1,%%%"},
        {"webhook_signature": "v1a,AAAA"},
        {"age": timedelta(seconds=400)},
        {"age": timedelta(seconds=-400)},
    ],
)
def test_anything_else_is_refused(changed):
    """What is not signed, or not of now, is refused with one exception."""
    with pytest.raises(NotVerified):
        verify(BODY, headers(**changed), text(KEY))


def test_changed_body_is_refused():
    """A body that differs in one byte is refused, and so is a secret of somebody else."""
    with pytest.raises(NotVerified):
        verify(BODY + b" ", headers(), text(KEY))
    with pytest.raises(NotVerified):
        verify(BODY, headers(), text(OTHER))


def test_malformed_secret_is_a_defect_of_the_receiver():
    """A secret that cannot be one is no matter of the request."""
    with pytest.raises(ValueError, match="whsec_"):
        verify(BODY, headers(), "whsec_%%%")
