"""The use cases of API keys, and the record of when keys were last used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from milepost.domain.api_key import issue_key
from milepost.domain.errors import InvalidRequest, Violation
from milepost.domain.pages import ITEM_BYTES, page_of, text_bytes
from milepost.domain.selection import Position
from milepost.domain.subject import subject_problem

if TYPE_CHECKING:
    from milepost.domain.api_key import ApiKey, CreateKeyRequest, KeySelection
    from milepost.domain.limits import Limits
    from milepost.domain.operation import Principal
    from milepost.domain.ports import KeyStore
    from milepost.tracking.page_tokens import PageTokens

MAX_UNWRITTEN_USES: Final = 20_000
"""Keys whose use is not written yet; further uses are lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A created key. The secret is None in a replayed answer, because it is shown only once."""

    key: ApiKey
    secret: str | None
    replayed: bool


class Keys:
    """Creates, lists and revokes API keys. Every method raises the errors of `KeyStore` too."""

    def __init__(
        self,
        store: KeyStore,
        *,
        limits: Limits,
        page_tokens: PageTokens,
        reserved_subjects: tuple[str, ...] = (),
    ) -> None:
        """Serve the keys of `store`.

        Args:
            store: where the keys are.
            limits: give the default size of a page.
            page_tokens: reads and issues page tokens.
            reserved_subjects: the prefixes of the subjects of trusted issuers.
        """
        self._store = store
        self._reserved_subjects = reserved_subjects
        self._limits = limits
        self._page_tokens = page_tokens
        self._used: set[str] = set()

    async def create(self, by: Principal, create_request: CreateKeyRequest) -> NewKey:
        """Create a key and return its secret, which is never shown again.

        Raises:
            InvalidRequest: its subject is not one, or belongs to a trusted issuer.
        """
        if problem := subject_problem(create_request.subject, self._reserved_subjects):
            raise InvalidRequest(Violation("subject", problem))
        secret, stored = issue_key(
            subject=create_request.subject,
            roles=create_request.roles,
            functions=create_request.functions,
        )
        result = await self._store.add_key(stored, create_request, creator=by.subject)
        if result.replayed:
            return NewKey(key=result.key, secret=None, replayed=True)
        return NewKey(key=result.key, secret=secret, replayed=False)

    async def list(
        self, by: Principal, selection: KeySelection, *, page_size: int = 0, page_token: str = ""
    ) -> tuple[list[ApiKey], str]:
        """Return one page, newest first, and the token of the next page; empty on the last page."""
        after = None
        if page_token:
            after = self._page_tokens.read(page_token, subject=by.subject, selection=selection)
        limit = page_size or self._limits.page_size_default
        found = await self._store.list_keys(selection, after, limit + 1)
        page = page_of(found, limit, max_bytes=self._limits.answer_bytes, size=_key_bytes)
        if page.is_last:
            return page.items, ""
        last = page.items[-1]
        position = Position(create_time=last.create_time, id=last.key_id)
        token = self._page_tokens.issue(position, subject=by.subject, selection=selection)
        return page.items, token

    async def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key for good; every replica refuses it within 5 s."""
        return await self._store.revoke_key(key_id)

    def note_use(self, key_id: str) -> None:
        """Note the use of a key, to be written by `write_uses`."""
        if len(self._used) < MAX_UNWRITTEN_USES:
            self._used.add(key_id)

    async def write_uses(self) -> None:
        """Write the uses noted since the last call. Uses are lost if the write fails."""
        used, self._used = self._used, set()
        if used:
            await self._store.record_key_use(used)


def _key_bytes(key: ApiKey) -> int:
    return ITEM_BYTES + text_bytes((key.subject, *key.roles, *key.functions))
