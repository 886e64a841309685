"""Causes for which the shared store of the limits cannot be used, as sentences for its operator."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from redis import Redis
from redis import exceptions as redis
from redis.backoff import NoBackoff
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NO_ANSWER: Final = "Redis does not answer"
_CLASSES: Final[Sequence[tuple[tuple[type[Exception], ...], str]]] = (
    (
        (redis.AuthenticationError, redis.AuthenticationWrongNumberOfArgsError),
        "Redis refuses the password or the user, or demands one",
    ),
    (
        (redis.AuthorizationError, redis.NoPermissionError),
        "the user of Redis lacks a permission: it needs EVALSHA, SCRIPT LOAD, TIME, GET and SET",
    ),
    ((redis.BusyLoadingError,), "Redis is starting"),
    ((redis.ReadOnlyError,), "Redis is a read-only replica: use the primary"),
    ((redis.OutOfMemoryError,), "Redis is out of memory"),
    ((redis.MaxConnectionsError,), "Redis has no connection left"),
)
_TEXTS: Final[Mapping[str, str]] = {
    r"NOAUTH|WRONGPASS|invalid (username-)?password": _CLASSES[0][1],
    r"NOPERM": _CLASSES[1][1],
    r"max number of clients": "Redis has no connection left",
    r"DB index is out of range": "Redis has no database of the number in the URL",
    r"CERTIFICATE_VERIFY_FAILED": "the certificate of Redis is not trusted",
    r"SSL|WRONG_VERSION_NUMBER": "TLS with Redis fails",
    r"Name or service not known|name resolution|No address associated": (
        "the name of Redis does not resolve"
    ),
    r"refused|Errno 111|Error 111": "nothing listens at the address of Redis",
}


def failure(error: Exception) -> str:
    """Return why the store cannot be used."""
    for kinds, cause in _CLASSES:
        if isinstance(error, kinds):
            return cause
    text = str(error)
    return next((cause for found, cause in _TEXTS.items() if re.search(found, text)), NO_ANSWER)


def text_of(error: Exception) -> str:
    """Return the driver's first line about `error`, for the log."""
    return str(error).partition("\n")[0] or type(error).__name__


def unusable(url: str, *, timeout_s: float) -> str | None:
    """Return why the store at `url` cannot be used now, with the driver's text, or None."""
    store = Redis.from_url(
        url,
        socket_connect_timeout=timeout_s,
        socket_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        store.eval("return redis.call('TIME')", 0)
    except (redis.RedisError, OSError) as error:
        return f"{failure(error)} ({text_of(error)})"
    finally:
        store.close()
    return None
