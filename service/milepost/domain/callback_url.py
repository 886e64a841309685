"""Callback URLs: the rules for their text, and for the addresses that webhooks are sent to.

The raw text is validated first. An accepted text becomes one `CallbackUrl`, and later code uses its
parts and never parses the text again: two parsers that read one text differently would open a gap
in the filter. Nothing is repaired: a text is accepted as it is or refused.

The tables below decide about addresses. The flags of `ipaddress` (`is_private`, `is_global`) are
not sufficient: they miss carrier-grade NAT, multicast, NAT64 and more, and differ between patch
releases of Python.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_REFUSED: Final = tuple(
    (ip_network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a platform's own"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("2001::/23", "reserved for protocols"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
    )
)
_GLOBAL_IPV6: Final = IPv6Network("2000::/3")
"""The only IPv6 range allowed: NAT64, compatible, local and multicast addresses are outside."""
_RESERVED_NAMES: Final = (
    "localhost",
    "local",
    "localdomain",
    "internal",
    "home.arpa",
    "svc",
    "onion",
    "invalid",
)
_PORTS: Final = {"https": 443, "http": 80}
_SECURE_PORTS: Final = (443, 8443)
_PLAIN_PORTS: Final = (80, 8080)
_MAX_HOST_LENGTH: Final = 253
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f\\]")
_ABSOLUTE: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)(#.*)?")
_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::(.*))?")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ENCODED: Final = "xn--"
_LETTERS: Final = frozenset({"Ll", "Lo", "Lm", "Mn", "Mc", "Nd"})
_UNSTABLE_BUT_VALID: Final = frozenset(
    "\u00df\u03c2\u0f0b\u3007\u00b7\u0375\u05f3\u05f4\u200c\u200d\u30fb"
)
"""Characters of RFC 5892 that Unicode's case folding or categories would exclude: exceptions, and
those that are valid in some contexts. Their context is checked where a name is encoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackRules:
    """The operator's rules for callback URLs."""

    allow_http: bool = False
    """Accept http too, with ports 80 and 8080. Every other rule still holds."""
    allowed_domains: tuple[str, ...] = ()
    """If not empty, the host must be one of these domains or a subdomain."""
    allowed_networks: tuple[Network, ...] = ()
    """Ranges that are allowed although the table refuses them."""
    refused_networks: tuple[Network, ...] = ()
    """Ranges that are always refused, such as the operator's own."""
    allowed_ports: tuple[int, ...] = ()
    """Ports beside the default ones."""
    max_length: int = 2048
    """Of the whole URL, in characters."""

    @property
    def ports(self) -> tuple[int, ...]:
        """Every allowed port."""
        plain = _PLAIN_PORTS if self.allow_http else ()
        return (*_SECURE_PORTS, *plain, *self.allowed_ports)


class RefusedUrl(ValueError):
    """Callback URL that the rules refuse. A retry changes nothing."""

    def __init__(self, problem: str) -> None:
        """Describe the problem as the end of "callback_url …", without secrets of the URL."""
        self.problem = problem
        super().__init__(problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackUrl:
    """A callback URL that meets the rules. Made by `read_callback_url` only."""

    scheme: str
    host: str
    """In ASCII (A-labels) and lower case, without brackets and without a dot at the end."""
    port: int
    path_and_query: str
    """As sent on the request line: begins with a slash."""
    text: str
    """As it was given. Its query may be a secret."""
    address: Address | None
    """The address, if the host is an address and not a name."""


def read_callback_url(text: str, rules: CallbackRules) -> CallbackUrl:
    """Return the parts of `text`. No name is resolved.

    Every problem is reported at once, that of the host first.

    Raises:
        RefusedUrl: the text, or an address in it, is not allowed.
    """
    _check_characters(text, rules)
    match = _ABSOLUTE.fullmatch(text)
    if match is None:
        raise RefusedUrl("must be an absolute URL such as https://example.com/callback")
    scheme, authority, path_and_query, fragment = match.groups()
    scheme = scheme.lower()
    user_info, _, place = authority.rpartition("@")
    # With unbalanced brackets, host and port cannot be told apart.
    parts = _AUTHORITY.fullmatch(place)
    host, port = parts.groups() if parts else (place, None)
    address, host_problem = _read_host(host.lower(), rules)
    problems = (
        host_problem,
        "may not name a user or a password" if user_info or "@" in authority else None,
        _port_problem(port, rules),
        _scheme_problem(scheme, rules),
        "may not have a fragment" if fragment is not None else None,
    )
    if any(problems):
        raise RefusedUrl("; ".join(filter(None, problems)))
    return CallbackUrl(
        scheme=scheme,
        host=str(address) if address else host.lower().removesuffix("."),
        port=int(port) if port else _PORTS[scheme],
        path_and_query=path_and_query if path_and_query.startswith("/") else f"/{path_and_query}",
        text=text,
        address=address,
    )


@functools.lru_cache(maxsize=4_096)
def address_problem(address: Address, rules: CallbackRules) -> str | None:
    """Return why `address` is refused, or None if it is allowed."""
    plain = unmapped(address)
    if _within(plain, rules.refused_networks):
        return "is refused by the operator of this service"
    if _within(plain, rules.allowed_networks):
        return None
    for network, kind in _REFUSED:
        if plain in network:
            return f"is not a public address ({kind})"
    if isinstance(plain, IPv6Address) and plain not in _GLOBAL_IPV6:
        return "is not a public address"
    return None


def unmapped(address: Address) -> Address:
    """Return the IPv4 address in an IPv6 address of ::ffff:0:0/96, or the address itself."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _check_characters(text: str, rules: CallbackRules) -> None:
    if not text.strip():
        raise RefusedUrl("may not be empty: leave it out if no webhook is wanted")
    if len(text) > rules.max_length:
        raise RefusedUrl(f"has {len(text)} characters, allowed are {rules.max_length}")
    if _UNPRINTABLE.search(text):
        raise RefusedUrl("may not contain control characters, spaces or backslashes")
    if not text.isascii():
        raise RefusedUrl(
            "must be written in ASCII: international names as xn--…, the rest percent-encoded"
        )


def _read_host(host: str, rules: CallbackRules) -> tuple[Address | None, str | None]:
    """Return the address in the host and the problem of the host, each None if absent."""
    if not host:
        return None, "must name a host"
    try:
        address = _literal(host)
    except ValueError:
        return (
            None,
            "has a host that is not a valid address: write it as 192.0.2.1 or [2001:db8::1]",
        )
    if address is not None:
        problem = address_problem(address, rules)
        if problem is not None:
            return address, f"may not point to {address}, which {problem}"
    else:
        problem = _name_problem(host.removesuffix("."))
        if problem is not None:
            return None, problem
    return address, _domain_problem(str(address) if address else host.removesuffix("."), rules)


def _literal(host: str) -> Address | None:
    if host.startswith("["):
        if not host.endswith("]") or "%" in host:
            raise ValueError(host)
        return IPv6Address(host[1:-1])
    if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        # Some resolvers take any name that ends in a number for an address: 127.1, 0x7f.1.
        return IPv4Address(host)
    return None


def _name_problem(name: str) -> str | None:
    for reserved in _RESERVED_NAMES:
        if name == reserved or name.endswith(f".{reserved}"):
            return f"may not point to {reserved} or a name below it"
    labels = name.split(".")
    if len(name) > _MAX_HOST_LENGTH or not all(map(_is_valid_label, labels)):
        return "has a host that is not a valid name: labels of letters, digits and inner hyphens"
    if len(labels) == 1:
        return "must name a host with its domain"
    return None


def _is_valid_label(label: str) -> bool:
    if not _LABEL.fullmatch(label):
        return False
    if label.startswith(_ENCODED):
        return _is_valid_encoding(label)
    # Two hyphens in this position are reserved for encodings such as xn--.
    return label[2:4] != "--"


def _is_valid_encoding(label: str) -> bool:
    """Return whether an ``xn--`` label is the canonical encoding of letters and digits.

    This is RFC 5891 without the contexts of characters and the directions of writing.
    """
    encoded = label.removeprefix(_ENCODED)
    try:
        decoded = encoded.encode().decode("punycode")
        again = decoded.encode("punycode").decode()
    except UnicodeError:
        return False
    return (
        again == encoded
        and not decoded.isascii()
        and unicodedata.normalize("NFC", decoded) == decoded
        and not unicodedata.category(decoded[0]).startswith("M")
        and all(map(_is_valid_character, decoded))
    )


def _is_valid_character(character: str) -> bool:
    if character == "-" or character in _UNSTABLE_BUT_VALID:
        return True
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", character).casefold())
    return folded == character and unicodedata.category(character) in _LETTERS


def _domain_problem(host: str, rules: CallbackRules) -> str | None:
    for domain in rules.allowed_domains:
        if host == domain.lower() or host.endswith(f".{domain.lower()}"):
            return None
    return "has a host that is not on this service's list" if rules.allowed_domains else None


def _port_problem(port: str | None, rules: CallbackRules) -> str | None:
    if not port or port in map(str, rules.ports):
        return None
    return f"may only use the ports {', '.join(map(str, rules.ports))}"


def _scheme_problem(scheme: str, rules: CallbackRules) -> str | None:
    if scheme == "https" or (scheme == "http" and rules.allow_http):
        return None
    return "must use HTTPS: https://…"
