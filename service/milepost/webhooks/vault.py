"""The vault: encryption of the stored signing secrets with the operator's master keys.

AES-256-GCM, with a random nonce in front of the ciphertext and the owner as associated data: the
secret of one owner is useless in the row of another.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from milepost import telemetry
from milepost.domain.errors import WebhooksNotConfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from milepost.domain.delivery import SealedSecret

NONCE_BYTES: Final = 12


class Vault:
    """Fills the port `SecretVault` with one or more master keys."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Encrypt with the first of `keys`; decrypt with the key that encrypted."""
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._current = next(iter(keys))

    def seal(self, owner: str, secret: bytes) -> tuple[str, bytes]:
        """See `SecretVault.seal`."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[self._current].encrypt(nonce, secret, owner.encode())
        return self._current, nonce + sealed

    def unseal(self, secret: SealedSecret) -> bytes:
        """See `SecretVault.unseal`."""
        cipher = self._ciphers.get(secret.key_id)
        nonce, sealed = secret.sealed[:NONCE_BYTES], secret.sealed[NONCE_BYTES:]
        try:
            if cipher is not None:
                return cipher.decrypt(nonce, sealed, secret.owner.encode())
            problem = "its master key is not configured"
        except InvalidTag:
            problem = "another master key has its id"
        telemetry.log.error("signing secret not decrypted", key_id=secret.key_id, problem=problem)
        raise WebhooksNotConfigured
