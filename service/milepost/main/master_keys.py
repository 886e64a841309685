"""The master keys, which encrypt signing secrets, and ``milepost webhooks reencrypt``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.config import SettingsError, redacted
from milepost.main.database import require_file, usable
from milepost.main.embedded import sqlite_path
from milepost.storage.signing_secrets import reencrypt
from milepost.webhooks.master_keys import key_beside, read_keys
from milepost.webhooks.vault import Vault

if TYPE_CHECKING:
    from milepost.config import Settings


def master_keys(settings: Settings) -> dict[str, bytes] | None:
    """Return the keys that encrypt signing secrets, the current one first, or None.

    The embedded store has a key of its own beside it, unless the operator configures others.

    Raises:
        SettingsError: The file of keys is not usable.
    """
    if settings.webhook_keys is not None:
        return read_keys(settings.webhook_keys.get_secret_value())
    path = settings.webhook_keys_file
    try:
        if path is not None:
            return read_keys(path.read_text(encoding="ascii"))
        if settings.embedded:
            database = sqlite_path(settings.database_url.get_secret_value())
            path = database.with_suffix(".webhook-keys")
            return key_beside(path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        shown = redacted("webhook_keys_file", path)
        raise SettingsError([f"MILEPOST_WEBHOOK_KEYS_FILE: {shown}: {why}"]) from None
    return None


def reencrypt_secrets(settings: Settings) -> int:
    """Encrypt every signing secret with the current master key; return the number of changes."""
    url = settings.database_url.get_secret_value()
    if settings.embedded:
        require_file(url)  # before a key is created beside it
    keys = master_keys(settings)
    if keys is None:
        raise SettingsError(["MILEPOST_WEBHOOK_KEYS: there are no master keys"])
    with usable(url) as engine:
        return reencrypt(engine, Vault(keys))
