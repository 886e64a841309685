"""Sources of the public keys of issuers: an address of the web, or a file."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp

from milepost import __version__
from milepost.access.key_sets import MAX_BYTES

if TYPE_CHECKING:
    from pathlib import Path

FETCH_TIMEOUT_S: Final = 3.0
"""Of one request as a whole."""
_CHUNK_BYTES: Final = 65_536
_OK: Final = 200


class UrlKeySet:
    """A JWK set at a URL; a `KeySetSource`."""

    def __init__(self, url: str) -> None:
        """Fetch from `url`."""
        self._url = url

    async def fetch(self) -> bytes:
        """Make one bounded request, without proxies, cookies and redirects."""
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    headers={"User-Agent": f"Milepost/{__version__}", "Accept": "application/json"},
                ) as session,
                session.get(self._url, allow_redirects=False) as response,
            ):
                return await _body(response)
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error) or type(error).__name__) from error


async def _body(response: aiohttp.ClientResponse) -> bytes:
    if response.status != _OK:
        raise ConnectionError(f"status {response.status}")
    body = b""
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BYTES:
            raise ConnectionError(f"more than {MAX_BYTES} bytes")
    return body


class FileKeySet:
    """A JWK set in a file, which may be replaced while the service runs; a `KeySetSource`."""

    def __init__(self, path: Path) -> None:
        """Read `path`."""
        self._path = path

    async def fetch(self) -> bytes:
        """Read the file, up to `MAX_BYTES`."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            return file.read(MAX_BYTES)
