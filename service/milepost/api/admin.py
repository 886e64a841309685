"""AdminService: purging expired operations, and API keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from milepost.api.convert import Fields
from milepost.api.messages import set_timestamp
from milepost.domain.api_key import MAX_GRANTS, CreateKeyRequest, KeySelection, is_grant
from milepost.domain.operation import Role
from milepost.domain.subject import subject_problem
from milepost.domain.sweep import EXPIRE, PURGE
from milepost.gen.milepost.v1 import admin_service_pb2 as pb

if TYPE_CHECKING:
    from milepost.api.call import ApiCall
    from milepost.domain.api_key import ApiKey
    from milepost.domain.limits import Limits
    from milepost.tracking.keys import Keys
    from milepost.tracking.sweeper import Sweeper

ROLE_NUMBERS: Final = {role: pb.Role.Value(f"ROLE_{role}") for role in Role}
_ROLE_OF: Final = {int(number): role for role, number in ROLE_NUMBERS.items()}
_KEY_ID: Final = re.compile(r"[0-9a-f]{16}")
_TIMES: Final = ("create_time", "expire_time", "last_used_time", "revoke_time")


class AdminService:
    """Convert each request, await its use case, convert the result."""

    def __init__(self, keys: Keys, sweeper: Sweeper, limits: Limits) -> None:
        """Serve `keys` and `sweeper`; check requests against `limits`."""
        self._keys = keys
        self._sweeper = sweeper
        self._limits = limits

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, call: ApiCall
    ) -> pb.CreateApiKeyResponse:
        """See the proto."""
        fields = KeyFields(request, self._limits)
        create_request = fields.create_key_request()
        fields.done()
        created = await self._keys.create(call.principal, create_request)
        response = pb.CreateApiKeyResponse(secret=created.secret, replayed=created.replayed)
        _fill(response.api_key, created.key)
        return response

    async def ListApiKeys(
        self, request: pb.ListApiKeysRequest, call: ApiCall
    ) -> pb.ListApiKeysResponse:
        """See the proto."""
        fields = KeyFields(request, self._limits)
        selection = KeySelection(subject=fields.name("subject"), inactive=request.show_inactive)
        page_size = fields.page_size()
        fields.done()
        keys, next_page_token = await self._keys.list(
            call.principal, selection, page_size=page_size, page_token=request.page_token
        )
        response = pb.ListApiKeysResponse(next_page_token=next_page_token)
        for key in keys:
            _fill(response.api_keys.add(), key)
        return response

    async def RevokeApiKey(
        self, request: pb.RevokeApiKeyRequest, _call: ApiCall
    ) -> pb.RevokeApiKeyResponse:
        """See the proto."""
        fields = KeyFields(request, self._limits)
        key_id = fields.key_id()
        fields.done()
        response = pb.RevokeApiKeyResponse()
        _fill(response.api_key, await self._keys.revoke(key_id))
        return response

    async def PurgeExpiredOperations(
        self, request: pb.PurgeExpiredOperationsRequest, _call: ApiCall
    ) -> pb.PurgeExpiredOperationsResponse:
        """See the proto."""
        sweeper = self._sweeper
        swept = await (sweeper.preview() if request.dry_run else sweeper.clean_up())
        return pb.PurgeExpiredOperationsResponse(
            purged_count=swept.counts[PURGE],
            failed_count=swept.counts[EXPIRE],
            more_remaining=swept.more,
        )


class KeyFields(Fields):
    """Reader of the fields of requests about API keys."""

    def key_id(self) -> str:
        """Return the id of a key. A violation never quotes it: it may be a whole key."""
        value: str = self._request.key_id
        if _KEY_ID.fullmatch(value) is None:
            self.refuse("key_id", f"must match {_KEY_ID.pattern}, matched whole")
        return value

    def create_key_request(self) -> CreateKeyRequest:
        """Return the key that the request asks to create."""
        roles = self._roles()
        return CreateKeyRequest(
            subject=self._subject(),
            roles=roles,
            functions=self._functions(worker=Role.WORKER in roles),
            expire_time=self.instant("expire_time"),
            request_id=self.request_id(),
        )

    def _subject(self) -> str:
        subject: str = self._request.subject
        if problem := subject_problem(subject):
            self.refuse("subject", problem)
        return subject

    def _roles(self) -> tuple[Role, ...]:
        given = self._request.roles
        if not given:
            self.refuse("roles", "must name at least one role")
        for n, number in enumerate(given):
            if number not in _ROLE_OF:
                self.refuse(f"roles[{n}]", f"is not a role: {number}")
        return tuple(sorted({_ROLE_OF[number] for number in given if number in _ROLE_OF}))

    def _functions(self, *, worker: bool) -> tuple[str, ...]:
        given = tuple(self._request.functions)
        if worker and not given:
            self.refuse("functions", "must name at least one function for a worker, or *")
        if given and not worker:
            self.refuse("functions", "must be empty without the role WORKER")
        if len(given) > MAX_GRANTS:
            self.refuse("functions", f"must be at most {MAX_GRANTS}, found {len(given)}")
        for n, grant in enumerate(given[:MAX_GRANTS]):
            if len(grant) > self._limits.name_length or not is_grant(grant):
                self.refuse(
                    f"functions[{n}]",
                    "must be the name of a function, or the beginning of names and a final *;"
                    f" without spaces, at most {self._limits.name_length} characters",
                )
        return tuple(sorted(set(given)))


def _fill(message: pb.ApiKey, key: ApiKey) -> None:
    message.key_id = key.key_id
    message.subject = key.subject
    message.roles.extend(ROLE_NUMBERS[role] for role in sorted(key.roles))
    message.functions.extend(key.functions)
    for name in _TIMES:
        if (instant := getattr(key, name)) is not None:
            set_timestamp(getattr(message, name), instant)
