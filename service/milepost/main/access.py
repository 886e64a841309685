"""The access checks that the settings describe: credentials, rate limits and admission."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from milepost.access.admission import Admission
from milepost.access.authenticator import CONFIRM_INTERVAL_S, Authenticator
from milepost.access.certificates import Certificates
from milepost.access.checks import AccessChecks
from milepost.access.key_sets import KeySet
from milepost.access.rate_limits import RateLimits, local_buckets
from milepost.access.tokens import Tokens
from milepost.main.periodic_tasks import run_periodically
from milepost.web.key_sets import FileKeySet, UrlKeySet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from milepost.config import Settings
    from milepost.domain.ports import CredentialStore, KeySetSource, RateLimiter
    from milepost.domain.trust import Issuer
    from milepost.main.readiness import Readiness


@contextlib.asynccontextmanager
async def access_of(
    settings: Settings,
    credentials: CredentialStore,
    note_use: Callable[[str], None],
    readiness: Readiness,
) -> AsyncIterator[AccessChecks]:
    """Provide the access checks: principals of `credentials` and the settings, limited by these.

    `note_use` is called with the id of each API key that was used. `readiness` learns why limits
    are not shared.
    """
    async with contextlib.AsyncExitStack() as stack:
        tokens = _tokens(settings)
        stack.push_async_callback(tokens.close)
        principals = settings.mtls_certificates
        authenticator = Authenticator(
            credentials,
            tokens=tokens if settings.trusted_issuers else None,
            certificates=Certificates(principals) if principals else None,
            note_use=note_use,
            reserved_subjects=settings.reserved_subjects,
            failures_per_minute=settings.auth_failures_per_minute,
        )
        confirming = asyncio.create_task(
            run_periodically("confirm keys", authenticator.confirm_keys, CONFIRM_INTERVAL_S)
        )
        stack.callback(confirming.cancel)
        yield AccessChecks(
            authenticator=authenticator,
            rate_limits=RateLimits(
                await stack.enter_async_context(_limiter(settings, readiness)),
                settings.allowances,
                progress_interval=timedelta(seconds=settings.progress_interval_seconds),
            ),
            admission=Admission(
                max_calls=settings.calls_max, max_waiting_calls=settings.waiting_calls_max
            ),
        )


@contextlib.asynccontextmanager
async def _limiter(settings: Settings, readiness: Readiness) -> AsyncIterator[RateLimiter]:
    """Provide the counter of calls: of all replicas if the settings name a shared store."""
    local = local_buckets()
    if settings.limits_url is None:
        yield local
        return
    # Imported here, because few services share their limits, and the client of Redis is large.
    from milepost.storage.shared_buckets import SharedBuckets  # noqa: PLC0415

    shared = SharedBuckets(
        settings.limits_url.get_secret_value(), local, partial(readiness.note_degraded, "limits")
    )
    try:
        yield shared
    finally:
        await shared.close()


def _tokens(settings: Settings) -> Tokens:
    """Return the verifier of the tokens of all trusted issuers."""
    return Tokens(
        {
            issuer.issuer: (issuer, KeySet(issuer.issuer, _source(issuer), issuer.algorithms))
            for issuer in settings.trusted_issuers
        }
    )


def _source(issuer: Issuer) -> KeySetSource:
    if issuer.jwks_url:
        return UrlKeySet(issuer.jwks_url)
    return FileKeySet(Path(issuer.jwks_file or ""))
