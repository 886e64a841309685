"""API keys as admins look after them, and what is noted of their use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from milepost.domain.api_key import issue_key
from milepost.domain.selection import Position

if TYPE_CHECKING:
    from milepost.domain.api_key import ApiKey, CreateKeyRequest, KeySelection
    from milepost.domain.limits import Limits
    from milepost.domain.operation import Principal
    from milepost.domain.ports import KeyStore
    from milepost.tracking.page_tokens import PageTokens

MOST_NOTED: Final = 1_000
"""Keys whose use waits to be written; of more, some are noted at their next look-up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was created, with its secret unless that was shown before."""

    key: ApiKey
    secret: str | None
    replayed: bool


class Keys:
    """Looks after API keys. Every method raises the errors of `KeyStore` too."""

    def __init__(self, store: KeyStore, *, limits: Limits, page_tokens: PageTokens) -> None:
        """Work on `store`, with pages of the size that `limits` tells."""
        self._store = store
        self._limits = limits
        self._page_tokens = page_tokens
        self._used: set[str] = set()

    async def create(self, by: Principal, create_request: CreateKeyRequest) -> NewKey:
        """Store a new key and return its secret, which is never shown again."""
        secret, stored = issue_key(
            subject=create_request.subject,
            roles=create_request.roles,
            functions=create_request.functions,
        )
        outcome = await self._store.add_key(stored, create_request, creator=by.subject)
        if outcome.replayed:
            return NewKey(key=outcome.key, secret=None, replayed=True)
        return NewKey(key=outcome.key, secret=secret, replayed=False)

    async def list(
        self, by: Principal, selection: KeySelection, *, page_size: int = 0, page_token: str = ""
    ) -> tuple[list[ApiKey], str]:
        """Return one page, newest first, and the token of the next one; empty at the end."""
        after = None
        if page_token:
            after = self._page_tokens.read(page_token, subject=by.subject, selection=selection)
        limit = page_size or self._limits.page_size_default
        found = await self._store.list_keys(selection, after, limit + 1)
        page = found[:limit]
        if len(found) <= limit:
            return page, ""
        position = Position(create_time=page[-1].create_time, id=page[-1].key_id)
        return page, self._page_tokens.issue(position, subject=by.subject, selection=selection)

    async def revoke(self, key_id: str) -> ApiKey:
        """Make a key worthless for good, within 5 s on every replica."""
        return await self._store.revoke_key(key_id)

    def note_use(self, key_id: str) -> None:
        """Remember that a key was used, until that is written."""
        if len(self._used) < MOST_NOTED:
            self._used.add(key_id)

    async def write_uses(self) -> None:
        """Store which keys were used since the last time, if any. If that fails, it is lost."""
        used, self._used = self._used, set()
        if used:
            await self._store.record_key_use(used)
