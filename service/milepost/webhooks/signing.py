"""Signatures after Standard Webhooks, version 1. Pure: bytes in, text out."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime


def signature(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return ``v1,`` and the base64 of the HMAC-SHA256 of id, timestamp and body.

    Args:
        key: the secret itself, not its text.
        webhook_id: stable over the attempts; has no dot.
        timestamp: of this attempt, in whole seconds since 1970.
        body: exactly the bytes that are sent.
    """
    signed = b".".join((webhook_id.encode(), str(timestamp).encode(), body))
    digest = hmac.digest(key, signed, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def signed_headers(
    keys: Iterable[bytes], webhook_id: str, time: datetime, body: bytes
) -> Mapping[str, str]:
    """Return the three headers; one signature for each key, the current one first."""
    timestamp = int(time.timestamp())
    signatures = (signature(key, webhook_id, timestamp, body) for key in keys)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
