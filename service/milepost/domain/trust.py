"""Trust beside API keys: issuers of tokens, and principals of client certificates.

Both are given as JSON. Reading it collects every problem, so that an operator sees all at once.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from milepost.domain.api_key import is_grant
from milepost.domain.operation import Principal, Role
from milepost.domain.subject import MAX_LENGTH, subject_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""Accepted signature algorithms: all asymmetric, so never a shared secret or `none`."""
LIFETIME_MAX: Final = timedelta(hours=24)
_KINDS: Final = ("dns:", "uri:", "email:", "ip:")
"""How the name of a certificate begins, by the kind of its subject alternative name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An issuer of tokens (JWT), and what its tokens must be and say."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    jwks_url: str | None
    jwks_file: str | None
    """Where its keys are: exactly one of the two is given."""
    subject_claim: str
    subject_prefix: str
    """Goes before the claim: so that the subjects of two issuers, and of API keys, differ."""
    roles_claim: str
    functions_claim: str
    lifetime_max: timedelta


def issuers_from(text: str) -> tuple[Issuer, ...]:
    """Return the issuers that a JSON list names.

    Raises:
        ValueError: its text has every problem.
    """
    found: list[Issuer] = []
    problems: list[str] = []
    for n, item in enumerate(_list_of(text, "issuers")):
        reader = _Reader(item, f"[{n}]", problems)
        found.append(_issuer(reader))
        reader.done()
    problems += _collisions(found)
    _raise(problems)
    return tuple(found)


def reserved_prefixes(issuers: Iterable[Issuer]) -> tuple[str, ...]:
    """Return the prefixes with which only the subjects of these issuers begin.

    An issuer without a prefix has its subjects in common with API keys and certificates.
    """
    return tuple(issuer.subject_prefix for issuer in issuers if issuer.subject_prefix)


def _issuer(reader: _Reader) -> Issuer:
    issuer = reader.text("issuer")
    url, file = reader.text("jwks_url", ""), reader.text("jwks_file", "")
    if bool(url) == bool(file):
        reader.refuse("jwks_url", "or jwks_file must be given, and not both")
    elif url and not _is_safe_url(url):
        reader.refuse("jwks_url", "must be https://, or http:// on loopback, without a password")
    algorithms = reader.words("algorithms")
    if not algorithms or not set(algorithms) <= set(ALGORITHMS):
        reader.refuse("algorithms", f"must be some of {', '.join(ALGORITHMS)}")
    seconds = reader.number("lifetime_max_seconds", LIFETIME_MAX.total_seconds())
    return Issuer(
        issuer=issuer,
        audience=reader.text("audience"),
        algorithms=algorithms,
        jwks_url=url or None,
        jwks_file=file or None,
        subject_claim=reader.text("subject_claim", "sub"),
        subject_prefix=reader.prefix("subject_prefix", f"{issuer}|"),
        roles_claim=reader.text("roles_claim", "roles"),
        functions_claim=reader.text("functions_claim", "functions"),
        lifetime_max=timedelta(seconds=seconds),
    )


def _collisions(issuers: Iterable[Issuer]) -> list[str]:
    """Return what would let one issuer speak for the subjects of another by accident."""
    names = [found.issuer for found in issuers]
    prefixes = [found.subject_prefix for found in issuers]
    return [
        *(["two issuers have the same name"] if len(set(names)) < len(names) else []),
        *(
            ["two issuers have subjects in common: give each a subject_prefix of its own"]
            if any(a.startswith(b) for n, a in enumerate(prefixes) for b in _but(prefixes, n))
            else []
        ),
    ]


def _but(values: list[str], n: int) -> list[str]:
    return values[:n] + values[n + 1 :]


def _is_safe_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_this_machine(host))


def is_this_machine(host: str) -> bool:
    """Return True if a host, a name or an address, is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def certificates_from(text: str, reserved: Iterable[str] = ()) -> dict[str, Principal]:
    """Return whom the client certificates of a JSON object speak for, by their names.

    A name is a kind and a subject alternative name, such as ``dns:encoder.example.com``.

    Args:
        text: the JSON object.
        reserved: the prefixes of the subjects of trusted issuers.

    Raises:
        ValueError: its text has every problem.
    """
    found: dict[str, Principal] = {}
    problems: list[str] = []
    for name, item in _object(text, "certificates").items():
        if not name.startswith(_KINDS) or name in _KINDS:
            problems.append(f"{name!r} must begin with {', '.join(_KINDS)}")
        reader = _Reader(item, name, problems)
        subject, roles = reader.subject("subject", reserved), reader.words("roles")
        functions = reader.words("functions", ())
        if not roles or not set(roles) <= set(Role):
            reader.refuse("roles", f"must be some of {', '.join(Role)}")
        if not all(is_grant(grant) for grant in functions):
            reader.refuse("functions", "must be names of functions, or patterns such as video.*")
        reader.done()
        found[name] = Principal(
            subject=subject,
            roles=frozenset(Role(role) for role in roles if role in set(Role)),
            credential_id=f"certificate {name}",
            functions=functions,
        )
    _raise(problems)
    return found


class _Reader:
    """Reads one JSON object and notes what is wrong with it."""

    def __init__(self, item: object, name: str, problems: list[str]) -> None:
        """Read `item`; call it `name` in `problems`."""
        self._item: dict[str, Any] = item if isinstance(item, dict) else {}
        self._name = name
        self._problems = problems
        self._known: set[str] = set()
        if not isinstance(item, dict):
            problems.append(f"{name} must be an object")

    def refuse(self, field: str, problem: str) -> None:
        """Note that a field is not as it must be."""
        self._problems.append(f"{self._name}.{field} {problem}")

    def text(self, field: str, default: str | None = None) -> str:
        """Return a text; it is required unless there is a default."""
        value = self._take(field, default)
        if not isinstance(value, str) or len(value) > MAX_LENGTH or not value.isprintable():
            self.refuse(field, f"must be a text of at most {MAX_LENGTH} characters")
            return ""
        if default is None and not value.strip():
            self.refuse(field, "must not be blank")
        return value

    def subject(self, field: str, reserved: Iterable[str]) -> str:
        """Return a subject, which is required."""
        value = self._take(field, None)
        if not isinstance(value, str):
            self.refuse(field, "must be a text")
            return ""
        if problem := subject_problem(value, reserved):
            self.refuse(field, problem)
        return value

    def prefix(self, field: str, default: str) -> str:
        """Return the beginning of subjects."""
        value = self.text(field, default)
        if subject_problem(f"{value}x"):
            self.refuse(field, "must be the beginning of visible subjects")
        return value

    def words(self, field: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """Return a list of texts; it is required unless there is a default."""
        value = self._take(field, default)
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            self.refuse(field, "must be a list of texts")
            return ()
        return tuple(value)

    def number(self, field: str, default: float) -> float:
        """Return a number of seconds, above 0 and at most a year."""
        value = self._take(field, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 < value <= timedelta(days=365).total_seconds():
            self.refuse(field, "must be a number of seconds, at most a year")
            return default
        return float(value)

    def done(self) -> None:
        """Report every unknown field, because it would have no effect."""
        for field in self._item.keys() - self._known:
            self.refuse(field, "is not known")

    def _take(self, field: str, default: object) -> Any:
        self._known.add(field)
        return self._item.get(field, default)


def _list_of(text: str, what: str) -> list[object]:
    value = _json(text or "[]", what)
    if not isinstance(value, list):
        raise ValueError(f"must be a JSON list of {what}")  # noqa: TRY004 - a problem of the text
    return value


def _object(text: str, what: str) -> Mapping[str, object]:
    value = _json(text or "{}", what)
    if not isinstance(value, dict):
        raise ValueError(f"must be a JSON object of {what}")  # noqa: TRY004 - likewise
    return value


def _json(text: str, what: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"must be JSON: {what}") from None


def _raise(problems: list[str]) -> None:
    if problems:
        raise ValueError("; ".join(problems))
