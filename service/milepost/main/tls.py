"""The TLS of the ports that the settings describe."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING

from milepost.config import SettingsError
from milepost.tls import TlsFiles, TlsPair, UnusableFilesError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from milepost.config import Settings
    from milepost.main.readiness import Readiness


@contextlib.asynccontextmanager
async def watched_tls(settings: Settings, readiness: Readiness) -> AsyncIterator[TlsPair | None]:
    """Provide certificate and key of the ports, renewed with their files; None without TLS.

    `readiness` learns why replaced files cannot be used.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        yield None
        return
    files = TlsFiles(
        certificate=settings.tls_cert_file,
        key=settings.tls_key_file,
        client_authorities=settings.tls_client_ca_file,
    )
    try:
        pair = TlsPair(files, partial(readiness.note_degraded, "tls"))
    except UnusableFilesError as error:  # replaced since the settings were checked
        raise SettingsError([f"MILEPOST_TLS_CERT_FILE: {error}"]) from error
    watching = asyncio.create_task(pair.watch())
    try:
        yield pair
    finally:
        watching.cancel()
