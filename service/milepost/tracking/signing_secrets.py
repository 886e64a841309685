"""The secrets that sign webhooks: one per owner, created with its first callback URL."""

from __future__ import annotations

import asyncio
import functools
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from milepost.domain.delivery import SigningSecret, SigningSecrets
from milepost.domain.errors import SigningSecretNotFound, WebhooksNotConfigured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost.domain.delivery import SealedSecret
    from milepost.domain.ports import SecretStore, SecretVault

SECRET_BYTES: Final = 32
SECRETS_OPEN: Final = 1_024
"""Maximum number of decrypted secrets in memory, so that a webhook needs no decryption."""
OVERLAP: Final = timedelta(hours=24)
"""Time for which a replaced secret continues to sign beside its successor."""


class Secrets:
    """The signing secrets. Every method also raises the errors of `SecretStore`."""

    def __init__(self, store: SecretStore, vault: SecretVault | None) -> None:
        """Keep secrets in `store`, encrypted by `vault`; without a vault every method refuses."""
        self._store = store
        self._vault = vault
        self._open = functools.lru_cache(SECRETS_OPEN)(self._opened)
        self._ensuring: dict[str, asyncio.Task[Sequence[SealedSecret]]] = {}

    async def get(self, owner: str) -> SigningSecrets:
        """Return the secrets that sign the webhooks of `owner`.

        Raises:
            SigningSecretNotFound: `owner` has no secret yet.
            WebhooksNotConfigured: no master key is configured, or not the one that encrypts them.
        """
        self._configured()
        found = await self._store.secrets(owner)
        if not found:
            raise SigningSecretNotFound
        return self._unsealed(found)

    async def prepare(self, owner: str) -> None:
        """Create the secret of `owner` unless it has one; of concurrent calls, one creates it.

        Raises:
            WebhooksNotConfigured: no master key is configured.
        """
        await self._ensured(owner)

    async def of_delivery(self, owner: str, found: Sequence[SealedSecret]) -> SigningSecrets:
        """Return the secrets that sign a delivery to `owner`, which was claimed with those `found`.

        An owner without a secret gets one, so that no webhook is ever sent unsigned.

        Raises:
            WebhooksNotConfigured: as `get`.
        """
        return self._unsealed(found or await self._ensured(owner))

    async def rotate(self, owner: str, request_id: str | None) -> SigningSecrets:
        """Create a secret of `owner`; it replaces the current one, and both sign for `OVERLAP`.

        Raises:
            WebhooksNotConfigured: as `get`.
        """
        key_id, sealed = self._configured().seal(owner, _fresh())
        rotated = await self._store.rotate_secret(owner, key_id, sealed, request_id, OVERLAP)
        now = await self.get(owner)
        return SigningSecrets(current=now.current, previous=now.previous, replayed=not rotated)

    def require(self) -> None:
        """Return if webhooks can be signed.

        Raises:
            WebhooksNotConfigured: no master key is configured.
        """
        self._configured()

    async def _ensured(self, owner: str) -> Sequence[SealedSecret]:
        """Return the secrets of `owner`, created if needed; concurrent calls share one task."""
        vault = self._configured()
        task = self._ensuring.get(owner)
        if task is None:
            task = self._ensuring[owner] = asyncio.create_task(self._ensure(vault, owner))
            task.add_done_callback(lambda _: self._ensuring.pop(owner))
        # A caller that is cancelled must not cancel the others.
        return await asyncio.shield(task)

    async def _ensure(self, vault: SecretVault, owner: str) -> Sequence[SealedSecret]:
        found = await self._store.secrets(owner)
        if not found:
            await self._store.first_secret(owner, *vault.seal(owner, _fresh()))
            found = await self._store.secrets(owner)
        return found

    def _unsealed(self, found: Sequence[SealedSecret]) -> SigningSecrets:
        current, *others = [self._open(secret) for secret in found]
        return SigningSecrets(current=current, previous=others[0] if others else None)

    def _opened(self, secret: SealedSecret) -> SigningSecret:
        return SigningSecret(
            key=self._configured().unseal(secret),
            create_time=secret.create_time,
            expire_time=secret.expire_time,
        )

    def _configured(self) -> SecretVault:
        if self._vault is None:
            raise WebhooksNotConfigured
        return self._vault


def _fresh() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)
