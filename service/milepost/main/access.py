"""Who is let in, and how often."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from milepost.rpc import jwks
from milepost.rpc.certificates import TlsFiles
from milepost.rpc.interceptors.limits import local_buckets
from milepost.rpc.server import Access, Gates
from milepost.rpc.tokens import Tokens
from milepost.storage.shared_buckets import SharedBuckets
from milepost.tracking.keys import Keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from milepost.config import Settings
    from milepost.domain.ports import RateLimiter
    from milepost.storage.api_keys import SqlKeyStore
    from milepost.tracking.page_tokens import PageTokens


@contextlib.asynccontextmanager
async def access_of(
    settings: Settings, store: SqlKeyStore, page_tokens: PageTokens
) -> AsyncIterator[Access]:
    """Let in whom the store and the settings know."""
    tokens = _tokens(settings)
    try:
        yield Access(
            credentials=store,
            keys=Keys(store, limits=settings.limits, page_tokens=page_tokens),
            tokens=tokens,
            certificates=settings.mtls_certificates,
        )
    finally:
        await tokens.close()


@contextlib.asynccontextmanager
async def gates_of(settings: Settings) -> AsyncIterator[Gates]:
    """Count calls on this replica, or with all others where the settings name a place for that."""
    async with contextlib.AsyncExitStack() as stack:
        limiter: RateLimiter = local_buckets()
        if settings.limits_url is not None:
            shared = SharedBuckets(settings.limits_url.get_secret_value(), limiter)
            stack.push_async_callback(shared.close)
            limiter = shared
        yield Gates(
            limiter=limiter,
            allowances=settings.allowances,
            progress_interval=timedelta(seconds=settings.progress_interval_seconds),
            gathering=settings.gathering,
            calls_max=settings.calls_max,
            waiting_max=settings.waiting_calls_max,
            auth_failures_per_minute=settings.auth_failures_per_minute,
        )


def tls_of(settings: Settings) -> TlsFiles | None:
    """Return what the gRPC port is encrypted with, if it is."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    return TlsFiles(
        certificate=settings.tls_cert_file,
        key=settings.tls_key_file,
        client_authorities=settings.tls_client_ca_file,
    )


def _tokens(settings: Settings) -> Tokens:
    """Return what verifies the tokens of the issuers that are trusted; there may be none."""
    trusted = {}
    for issuer in settings.trusted_issuers:
        source = (
            jwks.from_url(issuer.jwks_url)
            if issuer.jwks_url
            else jwks.from_file(Path(issuer.jwks_file or ""))
        )
        trusted[issuer.issuer] = (issuer, jwks.KeySet(issuer.issuer, source, issuer.algorithms))
    return Tokens(trusted)
