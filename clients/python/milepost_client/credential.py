"""The credential that every call carries: an API key, or the present token of a source."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from milepost_client.errors import Unauthenticated, Unavailable

TokenSource: TypeAlias = Callable[[], str | Awaitable[str]]
"""A function that returns the token (JWT) of a call, or a coroutine function.

It is called before every try of every call, so it keeps a token until that is about to expire.
"""


class Credential:
    """The metadata that identifies the caller; not shown by any text.

    Raises:
        ValueError: The API key is not one word of ASCII, or there is a token source too.
    """

    def __init__(self, api_key: str | None, token: TokenSource | None) -> None:
        if api_key is not None and token is not None:
            raise ValueError("api_key and token exclude each other")
        if api_key is not None and not _is_word(api_key):
            raise ValueError(
                "an API key is one word of ASCII: this one is empty, or has other characters"
            )
        self._fixed = () if api_key is None else _metadata(api_key)
        self._token = token

    async def metadata(self, timeout_s: float) -> tuple[tuple[str, str], ...]:
        """Return the metadata of one call.

        Args:
            timeout_s: The time after which the source is given up. It cannot interrupt a plain
                function, which blocks the event loop.

        Raises:
            Unauthenticated: The source returned something else than one word of ASCII.
            Unavailable: The source failed or took too long, which is as temporary as a service
                without an answer.
        """
        return self._fixed if self._token is None else _metadata(await _ask(self._token, timeout_s))


def _metadata(word: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {word}"),)


async def _ask(source: TokenSource, timeout_s: float) -> str:
    try:
        async with asyncio.timeout(timeout_s):
            token = source()
            if inspect.isawaitable(token):
                token = await token
    except TimeoutError as problem:
        raise _no_token("took too long") from problem
    except Exception as problem:
        raise _no_token("failed") from problem
    except asyncio.CancelledError as problem:
        if _is_cancelled():
            raise
        # What the source awaited was cancelled, such as a request that several calls share.
        raise _no_token("failed") from problem
    if not _is_word(token):
        raise Unauthenticated("the token source returned something else than one word of ASCII")
    return token


def _no_token(problem: str) -> Unavailable:
    return Unavailable(
        f"the token source {problem}: no call was made", code=grpc.StatusCode.UNAVAILABLE
    )


def _is_cancelled() -> bool:
    """Return True if the task that runs was cancelled itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _is_word(text: Any) -> bool:
    return (
        isinstance(text, str) and text.isascii() and text.isprintable() and len(text.split()) == 1
    )
