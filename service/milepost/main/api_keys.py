"""``milepost keys``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from milepost.domain.api_key import issue_key
from milepost.main.database import usable
from milepost.storage.api_keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime, timedelta
    from typing import Any

    from milepost.domain.operation import Role


def create_key(
    url: str,
    *,
    subject: str,
    roles: Iterable[Role],
    functions: Iterable[str],
    lifetime: timedelta | None = None,
) -> tuple[str, str, datetime | None]:
    """Store a new API key; return its public id, the key itself, and its expire time."""
    key, stored = issue_key(subject=subject, roles=roles, functions=functions)
    with _keys(url, create=True) as keys:
        expire_time = keys.add(stored, lifetime=lifetime)
    return stored.principal.credential_id, key, expire_time


def list_keys(url: str) -> list[dict[str, Any]]:
    """Return every API key, newest first, without secrets."""
    with _keys(url) as keys:
        return keys.rows()


def revoke_key(url: str, key_id: str) -> bool:
    """Revoke a key; return False if it does not exist."""
    with _keys(url) as keys:
        return keys.revoke(key_id)


@contextlib.contextmanager
def _keys(url: str, *, create: bool = False) -> Iterator[KeyRing]:
    with usable(url, create=create) as engine:
        yield KeyRing(engine)
