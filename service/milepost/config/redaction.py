"""Redaction of settings: passwords, keys and tokens are masked before printing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from milepost.config.values import listed

SECRET: Final = frozenset({"database_url", "limits_url", "webhook_keys"})
"""Settings whose values are never printed unmasked."""
_KEYS: Final = frozenset({"webhook_keys"})
"""Settings of which only the ids of the keys are printed."""
_PASSWORD: Final = re.compile(
    r"(://[^:@/]*):.*@|([?&](?:password|secret|token)=)[^&]*", re.IGNORECASE
)


def mask(text: str) -> str:
    """Return `text` with the passwords inside URLs replaced."""
    return _PASSWORD.sub(lambda found: f"{found[1]}:***@" if found[1] else f"{found[2]}***", text)


def redacted(name: str, value: Any) -> Any:
    """Return the value of the setting `name`, safe to print."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str):
        return value
    return _only_ids(value) if name in _KEYS else mask(value)


def _only_ids(text: str) -> str:
    ids = (item.partition(":") for item in listed(text))
    return ",".join(f"{id_}:***" if colon else "***" for id_, colon, _ in ids)
