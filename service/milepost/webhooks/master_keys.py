"""The operator's master keys, in the form ``id:base64,id:base64``."""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

KEY_BYTES: Final = 32
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_OWNER_ONLY: Final = 0o600


def read_keys(text: str) -> dict[str, bytes]:
    """Return the master keys of ``id:base64,id:base64``, the current one first.

    Raises:
        ValueError: The text does not have this form. The message quotes ids only.
    """
    keys: dict[str, bytes] = {}
    for n, item in enumerate(re.split(r"[,\s]+", text.strip()), start=1):
        key_id, colon, encoded = item.partition(":")
        if not colon or _KEY_ID.fullmatch(key_id) is None:
            raise ValueError(f"key {n} must be ID:BASE64, the id of letters, digits, _ and -")
        if key_id in keys:
            raise ValueError(f"key {n} has the id {key_id} of another one")
        try:
            keys[key_id] = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            keys[key_id] = b""
        if len(keys[key_id]) != KEY_BYTES:
            raise ValueError(f"key {n} must be {KEY_BYTES} random bytes in base64")
    return keys


def new_key() -> str:
    """Return a fresh master key in the form that `read_keys` reads."""
    return f"k{os.urandom(3).hex()}:{base64.b64encode(os.urandom(KEY_BYTES)).decode()}"


def key_beside(path: Path) -> dict[str, bytes]:
    """Return the keys in the file at `path`. Create it with a new key if it does not exist.

    Only the user that runs the service can read the file.

    Raises:
        ValueError: The file does not hold a list of keys.
        OSError: The file can be neither read nor created.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    except FileExistsError:
        return read_keys(path.read_text(encoding="ascii"))
    with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - the mode is set above
        file.write(text := new_key())
        file.flush()
        os.fsync(file.fileno())
    return read_keys(text)
