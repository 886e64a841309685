"""Secrets that must not leak, and the recorded output of all services.

The tests guard the secrets that they send to a service (keys, payloads, passwords), and record its
output: logs, spans, pages of metrics, errors. At the end of the session the output must not
contain any secret, in plain text, in base64 or in hexadecimal.
"""

import base64
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

SHOWN: Final = 16
"""Length of the beginning of a secret that counts as a leak."""
_RUN: Final = re.compile(rb"[A-Za-z0-9+/_-]{%d,}" % SHOWN)
_WITHOUT_NEIGHBOURS: Final = (0, 2, 3)
"""Characters of base64 that depend on the text before, by the bytes before modulo 3."""


def fresh() -> str:
    """Return a new secret."""
    return f"k{secrets.token_hex(16)}"


def forms(secret: str) -> Iterator[tuple[str, str]]:
    """Return every searched form of the secret by name, with base64 at each of its offsets."""
    raw = secret.encode()
    yield "plain", secret
    yield "hex", raw.hex()
    yield "hex", raw.hex().upper()
    for before, skipped in enumerate(_WITHOUT_NEIGHBOURS):
        whole = (before + len(raw)) * 8 // 6  # the last character may depend on the text after
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield "base64", encode(bytes(before) + raw).decode()[skipped:whole]


class Canaries:
    """Secrets to search for, and the text to search."""

    def __init__(self) -> None:
        self._beginnings: dict[bytes, str] = {}
        self._seen: set[tuple[str, bytes]] = set()
        self._files: set[Path] = set()

    def guard(self, kind: str, secret: str) -> str:
        """Search for `secret` from now on, and return it."""
        if len(secret) < SHOWN:
            raise ValueError(f"{kind}: too short to be value apart from chance")
        for form, text in forms(secret):
            self._beginnings[text[:SHOWN].encode()] = f"{kind} in {form}"
        return secret

    def fresh(self, kind: str) -> str:
        """Return a new guarded secret."""
        return self.guard(kind, fresh())

    def guard_setting(self, name: str, value: str) -> None:
        """Guard the value of a secret setting, or the password of an address."""
        secret = urlsplit(value).password if "://" in value else value
        if secret is not None and len(secret) >= SHOWN:
            self.guard(f"setting {name}", secret)

    def saw(self, place: str, text: str | bytes) -> None:
        """Record text that a service let out."""
        self._seen.add((place, text.encode() if isinstance(text, str) else text))

    def saw_error(self, error: object) -> None:
        """Record all that a caller got with a refusal, from grpc or from grpc.aio."""
        for part in ("details", "initial_metadata", "trailing_metadata"):
            value = getattr(error, part, lambda: None)()
            for item in [value] if isinstance(value, str) else value or ():
                for text in [item] if isinstance(item, str) else tuple(item):
                    self.saw("an error", text)

    def watch(self, file: Path) -> None:
        """Search `file` too."""
        self._files.add(file)

    def leaks(self) -> list[str]:
        """Return which secrets got out, in which form and where, never the secrets themselves."""
        found = set()
        for place, content in self._contents():
            for run in set(_RUN.findall(content)):
                for start in range(len(run) - SHOWN + 1):
                    kind = self._beginnings.get(run[start : start + SHOWN])
                    if kind is not None:
                        found.add(f"{kind}, in {place}")
        return sorted(found)

    def _contents(self) -> Iterator[tuple[str, bytes]]:
        yield from self._seen
        for file in self._files:
            if file.exists():
                yield f"the log {file.name}", file.read_bytes()


CANARIES: Final = Canaries()
"""The canaries of this session."""
