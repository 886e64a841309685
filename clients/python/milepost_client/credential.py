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
                "an API key is one word of ASCII: this one is empty, or has a space or a line end"
            )
        self._fixed = () if api_key is None else _metadata(api_key)
        self._token = token

    async def metadata(self, timeout: float) -> tuple[tuple[str, str], ...]:
        """Return the metadata of one call.

        Args:
            timeout: The seconds that the source has for its answer.

        Raises:
            Unauthenticated: The source returned something else than one word of ASCII.
            Unavailable: The source failed or did not answer, which is as temporary as a service
                without an answer.
        """
        return self._fixed if self._token is None else _metadata(await _ask(self._token, timeout))


def _metadata(word: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {word}"),)


async def _ask(source: TokenSource, timeout: float) -> str:
    try:
        token = source()
        if inspect.isawaitable(token):
            token = await asyncio.wait_for(token, timeout)
    except Exception as problem:
        raise Unavailable(
            "the token source failed: no call was made", code=grpc.StatusCode.UNAVAILABLE
        ) from problem
    if not _is_word(token):
        raise Unauthenticated("the token source returned something else than one word of ASCII")
    return token


def _is_word(text: Any) -> bool:
    return (
        isinstance(text, str) and text.isascii() and text.isprintable() and len(text.split()) == 1
    )
