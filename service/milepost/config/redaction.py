"""Redaction of settings: passwords, keys and tokens are masked before printing.

A setting that may hold a secret is printed only as far as its form is certain. What cannot be
parsed may be a secret as a whole, and is masked as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from pydantic import SecretStr

from milepost.config.values import listed
from milepost.domain.trust import issuers_from

MASK: Final = "***"
SECRET: Final = frozenset({"database_url", "limits_url", "webhook_keys"})
"""Settings that usually hold a secret."""
_URL: Final = re.compile(
    r"(?P<start>[A-Za-z][A-Za-z0-9+.-]{0,31}://)"
    r"(?:(?P<user>[^:@/?#\s]*)(?P<password>:.*)?@)?"
    r"(?P<place>(?:\[[0-9A-Fa-f:.%]+\]|[\w.,-]*)(?::\d{1,5})?(?:/[^@?#]*)?)"
    r"(?:\?(?P<query>[^@#]*))?"
)
"""A URL whose password, if it has one, ends at the last @."""
_FILE_URL: Final = re.compile(r"(?P<start>sqlite:///)(?P<place>[^?]*)(?:\?(?P<query>.*))?")
_SECRET_PARAMETER: Final = re.compile(r"pass|pwd|secret|token|key|auth|cred", re.IGNORECASE)
_PASSWORD: Final = re.compile(r":(?://[^:@/\s\"']*:)?[^@\s\"']*@")
"""The text before an @, from the first colon: the password of a URL, if it is one."""
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_NO_PATH: Final = re.compile(r"[:=\r\n]|-----")
"""Characters of a key in base64 or PEM, which a path hardly ever has."""


def redacted(name: str, value: Any) -> Any:
    """Return the value of the setting `name`, safe to print."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path) or (name.endswith("_file") and isinstance(value, str)):
        return _path(str(value))
    return _REDACTIONS.get(name, mask)(value) if isinstance(value, str) else value


def mask(text: str) -> str:
    """Return `text` without whatever may be the password of a URL in it."""
    return _PASSWORD.sub(f":{MASK}@", text)


def _url(text: str) -> str:
    found = _FILE_URL.fullmatch(text) or _URL.fullmatch(text)
    if found is None:
        return MASK if text else text
    parts = found.groupdict(default=None)
    user = "" if parts.get("user") is None else f"{parts['user']}@"
    if parts.get("password") is not None:
        user = f"{parts['user']}:{MASK}@"
    query = "" if parts["query"] is None else f"?{_query(parts['query'])}"
    return f"{parts['start']}{user}{parts['place']}{query}"


def _redis_url(text: str) -> str:
    """Return the URL of a Redis, where a single word before the @ is a password, too."""
    return re.sub(r"(?<=://)[^:@]+@", f"{MASK}@", _url(text))


def _query(text: str) -> str:
    pairs = (pair.partition("=") for pair in text.split("&"))
    return "&".join(
        f"{name}={MASK}" if _SECRET_PARAMETER.search(unquote(name)) else f"{name}{equals}{value}"
        for name, equals, value in pairs
    )


def _only_ids(text: str) -> str:
    items = (item.partition(":") for item in listed(text))
    return ",".join(
        f"{id_}:{MASK}" if colon and _KEY_ID.fullmatch(id_) else MASK for id_, colon, _ in items
    )


def _issuers(text: str) -> str:
    """Return valid issuers as they are: their URLs have no passwords."""
    try:
        issuers_from(text)
    except ValueError:
        return MASK
    return text


def _path(text: str) -> str:
    return MASK if _NO_PATH.search(text) and not _exists(text) else text


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


_REDACTIONS: Final[Mapping[str, Callable[[str], str]]] = {
    "database_url": _url,
    "limits_url": _redis_url,
    "otlp_endpoint": _url,
    "webhook_keys": _only_ids,
    "jwt_issuers": _issuers,
    "mtls_principals": str,  # the names of certificates have an @
}
