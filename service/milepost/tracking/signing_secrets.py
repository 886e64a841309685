"""The secrets that sign webhooks: one per owner, made when it is first needed, replaced at will."""

from __future__ import annotations

import functools
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from milepost.domain.delivery import SigningSecret, SigningSecrets
from milepost.domain.errors import WebhooksNotConfigured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost.domain.delivery import SealedSecret
    from milepost.domain.ports import SecretStore, SecretVault

SECRET_BYTES: Final = 32
SECRETS_OPEN: Final = 1_024
"""That are kept as they were read: a busy owner's secret is not decrypted for each webhook."""
OVERLAP: Final = timedelta(hours=24)
"""How long a secret goes on signing beside the one that replaced it."""


class Secrets:
    """The signing secrets. Every method raises the errors of `SecretStore` too."""

    def __init__(self, store: SecretStore, vault: SecretVault | None) -> None:
        """Keep secrets in `store`, encrypted by `vault`; without one there are none."""
        self._store = store
        self._vault = vault
        self._open = functools.lru_cache(SECRETS_OPEN)(self._opened)

    async def of(self, owner: str, found: Sequence[SealedSecret] = ()) -> SigningSecrets:
        """Return what signs the webhooks of `owner` now; the first call makes it.

        Args:
            owner: of the webhooks.
            found: what signs now, where it was just read.

        Raises:
            WebhooksNotConfigured: there is no master key, or not the one they are encrypted with.
        """
        vault = self._configured()
        found = found or await self._store.secrets(owner)
        if not found:
            await self._store.first_secret(owner, *vault.seal(owner, _fresh()))
            found = await self._store.secrets(owner)
        current, *others = [self._open(secret) for secret in found]
        return SigningSecrets(current=current, previous=others[0] if others else None)

    async def rotate(self, owner: str, request_id: str | None) -> SigningSecrets:
        """Replace the secret of `owner` by a new one; both sign for `OVERLAP`.

        Raises:
            WebhooksNotConfigured: as `of`.
        """
        key_id, sealed = self._configured().seal(owner, _fresh())
        rotated = await self._store.rotate_secret(owner, key_id, sealed, request_id, OVERLAP)
        now = await self.of(owner)
        return SigningSecrets(current=now.current, previous=now.previous, replayed=not rotated)

    def require(self) -> None:
        """Return if webhooks can be signed.

        Raises:
            WebhooksNotConfigured: there is no master key.
        """
        self._configured()

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
