"""Base64 with the URL-safe alphabet and without padding (RFC 4648, section 5)."""

from __future__ import annotations

import base64


def encoded(raw: bytes) -> str:
    """Return `raw` in base64url."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decoded(text: str) -> bytes:
    """Return the bytes of `text`.

    Raises:
        ValueError: `text` is not the canonical encoding. The decoder of the standard library
            ignores foreign characters and unused bits.
    """
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encoded(raw) != text:
        raise ValueError("not canonical base64url")
    return raw
