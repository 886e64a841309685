"""The verification of webhooks: that a request comes from Milepost, and is fresh."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

TOLERANCE: Final = timedelta(minutes=5)
"""The maximum difference of the clocks; an older webhook may be a replay."""
_PREFIX: Final = "whsec_"
_VERSION: Final = "v1"


class NotVerified(Exception):
    """The request is not a fresh webhook of this secret: answer it with 400 or 401."""


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secret: str | Iterable[str],
    *,
    tolerance: timedelta = TOLERANCE,
    now: float | None = None,
) -> dict[str, Any]:
    """Verify the signature and the time of a webhook, and return its content.

    Args:
        body: The body, exactly as it was received.
        headers: The headers, their names in any case.
        secret: A signing secret (``whsec_…``), or several during a rotation.
        tolerance: The maximum difference between its time and `now`.
        now: The present time, in seconds since 1970; by default that of this machine.

    Raises:
        NotVerified: The request must not be trusted.
        ValueError: A secret is malformed.
    """
    found = {name.lower(): value for name, value in headers.items()}
    try:
        webhook_id = found["webhook-id"]
        timestamp = found["webhook-timestamp"]
        signatures = found["webhook-signature"]
    except KeyError as missing:
        raise NotVerified(f"the header {missing} is missing") from None
    if not (timestamp.isascii() and timestamp.isdigit()):
        raise NotVerified("the timestamp is not a number")
    age = (time.time() if now is None else now) - int(timestamp[:20])
    if abs(age) > tolerance.total_seconds():
        raise NotVerified("the webhook is too old, or ahead of the time")
    signed = b".".join((webhook_id.encode(), timestamp.encode(), body))
    secrets = [secret] if isinstance(secret, str) else list(secret)
    expected = [hmac.digest(_key(each), signed, hashlib.sha256) for each in secrets]
    # All pairs are compared, so that the duration reveals nothing.
    matches = [hmac.compare_digest(given, one) for given in _given(signatures) for one in expected]
    if not any(matches):
        raise NotVerified("no signature matches")
    content: dict[str, Any] = json.loads(body)
    return content


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("a secret is whsec_ and base64") from None


def _given(signatures: str) -> Iterable[bytes]:
    for signature in signatures.split(" "):
        version, _, encoded = signature.partition(",")
        if version == _VERSION:
            try:
                yield base64.b64decode(encoded, validate=True)
            except ValueError:
                continue
