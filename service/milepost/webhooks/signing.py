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
        key: the bytes of the secret, not its text.
        webhook_id: the same for all attempts; without a dot.
        timestamp: of this attempt, in whole seconds since 1970.
        body: the exact bytes that are sent.
    """
    signed = b".".join((webhook_id.encode(), str(timestamp).encode(), body))
    digest = hmac.digest(key, signed, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def signed_headers(
    keys: Iterable[bytes], webhook_id: str, time: datetime, body: bytes
) -> Mapping[str, str]:
    """Return the three headers, with a signature for each key, the current key first."""
    timestamp = int(time.timestamp())
    signatures = (signature(key, webhook_id, timestamp, body) for key in keys)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
