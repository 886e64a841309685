"""Base64 with the URL-safe alphabet and without padding (RFC 4648, section 5), in one form only."""

from __future__ import annotations

import base64


def encoded(raw: bytes) -> str:
    """Return the text of `raw`."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decoded(text: str) -> bytes:
    """Return the bytes of `text`.

    Raises:
        ValueError: `text` is not what `encoded` makes of them: decoders skip over what is no
            base64, and over bits that say nothing.
    """
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encoded(raw) != text:
        raise ValueError("not in the one form")
    return raw
