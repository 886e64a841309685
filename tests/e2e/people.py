"""Every kind of principal, with a valid or an invalid credential."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from milepost.domain.api_key import issue_key
from milepost.domain.operation import Role
from milepost.domain.transitions import Actor
from milepost.storage.tables import api_keys
from tests import factories
from tests.canaries import CANARIES
from tests.e2e.rpcs import Metadata


@dataclass(frozen=True, kw_only=True)
class Person:
    """A kind of principal, with a valid or an invalid credential."""

    kind: str
    subject: str = ""
    roles: frozenset[Role] = frozenset()
    functions: tuple[str, ...] = ()
    metadata: Metadata = ()
    known: bool = True
    """True if the credential is valid."""

    def relations(self, owner: str, function: str) -> frozenset[Actor]:
        """Return the relations of the person to an operation of this owner and function."""
        granted = Role.WORKER in self.roles and any(
            function.startswith(grant[:-1]) if grant.endswith("*") else function == grant
            for grant in self.functions
        )
        are = {
            Actor.OWNER: self.subject == owner,
            Actor.WORKER: granted,
            Actor.ADMIN: Role.ADMIN in self.roles,
        }
        return frozenset(actor for actor, is_one in are.items() if is_one)


def people(function: str, engine: Engine) -> list[Person]:
    """Return every kind of principal, all of them new, with their keys in the database."""
    fresh = uuid.uuid4().hex[:12]
    grant = (function.rpartition(".")[0] + ".*",)
    made = [
        _person("owner", fresh, [Role.CALLER]),
        _person("another owner", fresh, [Role.CALLER]),
        _person("worker with the grant", fresh, [Role.WORKER], grant),
        _person("worker with another grant", fresh, [Role.WORKER], ("audio.*", function + ".x")),
        _person("worker without a grant", fresh, [Role.WORKER]),
        _person("grant without the role", fresh, [Role.CALLER], ("*",)),
        _person("no role", fresh, [], ("*",)),
        _person("admin", fresh, [Role.ADMIN]),
        _person("caller and worker", fresh, [Role.CALLER, Role.WORKER], (function,)),
        _person("caller and admin", fresh, [Role.CALLER, Role.ADMIN]),
        _person("all roles", fresh, list(Role), ("*",)),
    ]
    past = datetime.now(UTC) - timedelta(minutes=1)
    revoked = _person("revoked key", fresh, list(Role), ("*",))
    expired = _person("expired key", fresh, list(Role), ("*",))
    rows = [
        *(row for _, row in made),
        revoked[1] | {"revoke_time": past},
        expired[1] | {"expire_time": past},
    ]
    with engine.begin() as connection:
        connection.execute(sa.insert(api_keys), [_NEITHER | row for row in rows])
    unknown = _person("unknown key", fresh, list(Role))
    bad = [_stranger(person.kind, person.metadata) for person, _ in (revoked, expired, unknown)]
    return [person for person, _ in made] + bad + _without_a_key()


_NEITHER: Final = {"revoke_time": None, "expire_time": None}


def _person(
    kind: str, fresh: str, roles: Sequence[Role], functions: Iterable[str] = ()
) -> tuple[Person, dict[str, Any]]:
    subject = f"{kind}-{fresh}".replace(" ", "-")
    key, stored = issue_key(subject=subject, roles=roles, functions=functions)
    CANARIES.guard("API key", key.split("_")[2])
    person = Person(
        kind=kind,
        subject=subject,
        roles=frozenset(roles),
        functions=tuple(functions),
        metadata=(("authorization", f"Bearer {key}"),),
    )
    row = {
        "key_id": stored.principal.credential_id,
        "digest": stored.digest,
        "subject": subject,
        "roles": " ".join(roles),
        "functions": " ".join(functions),
        "create_time": factories.LONG_AGO,
    }
    return person, row


def _stranger(kind: str, metadata: Metadata) -> Person:
    return Person(kind=kind, metadata=metadata, known=False)


def _without_a_key() -> list[Person]:
    headers = {
        "malformed credential": "Bearer mp_nonsense",
        "credential of another scheme": "Basic YWxpY2U6c2VjcmV0",
        "empty credential": "Bearer ",
    }
    return [
        _stranger("anonymous", ()),
        *(_stranger(kind, (("authorization", text),)) for kind, text in headers.items()),
    ]
