"""Hosts and addresses that callback URLs may point to."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.domain.callback_url import CallbackRules, address_problem
from tests.unit.callback_rules import PLAIN, RULES, problem_of

LOOPBACK = CallbackRules(allowed_networks=(ip_network("127.0.0.0/8"),))

# The ranges of the specification.
REFUSED_IPV4 = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
    "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
)  # fmt: skip
REFUSED_IPV6 = ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")


def bounds(network: str) -> tuple[int, int]:
    """Return the first and the last address of `network`, as numbers."""
    first, _, length = network.partition("/")
    address = ip_address(first)
    return int(address), int(address) + 2 ** (address.max_prefixlen - int(length)) - 1


def expected_ipv4(number: int) -> bool:
    """Return True if the specification allows the IPv4 address `number`."""
    return not any(first <= number <= last for first, last in map(bounds, REFUSED_IPV4))


def expected_ipv6(number: int) -> bool:
    """Return True if the specification allows the IPv6 address `number`."""
    if number >> 32 == 0xFFFF:
        return expected_ipv4(number & 0xFFFF_FFFF)
    refused = any(first <= number <= last for first, last in map(bounds, REFUSED_IPV6))
    return number >> 125 == 1 and not refused


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST", "LocalHost", "localhost.", "127.0.0.1", "127.255.255.254", "[::1]",
     "[0:0:0:0:0:0:0:1]", "0.0.0.0",  # noqa: S104 - refused
     "[::]", "[::FFFF:127.0.0.1]", "[::ffff:7F00:1]"],
)  # fmt: skip
def test_this_machine(host: str):
    """The machine itself is refused by every name and in any letter case."""
    assert problem_of(f"https://{host}/")
    assert problem_of(f"http://{host}/", PLAIN)


@pytest.mark.parametrize(
    "text",
    ["https://169.254.169.254/", "https://metadata.google.internal/", "https://100.100.100.200/",
     "https://[fd00:ec2::254]/", "https://168.63.129.16/", "https://192.0.0.192/",
     "http://169.254.169.254/metadata", "http://METADATA.google.INTERNAL./computeMetadata/v1/"],
)  # fmt: skip
def test_metadata_services(text: str):
    """The metadata services of clouds are refused."""
    problem = problem_of(text) or ""
    assert "public" in problem or "internal" in problem


@pytest.mark.parametrize("network", [*REFUSED_IPV4, *REFUSED_IPV6])
def test_reserved_literals(network: str):
    """Every refused range is refused from its first to its last address, and not beyond."""
    kind = IPv6Address if ":" in network else IPv4Address
    expected = expected_ipv6 if ":" in network else expected_ipv4
    first, last = bounds(network)
    assert not expected(first)
    assert not expected(last)
    for number in {first - 1, first, last, last + 1}:
        if 0 <= number < 2 ** kind(0).max_prefixlen:
            assert (address_problem(kind(number), RULES) is None) == expected(number), kind(number)


@pytest.mark.parametrize(
    "text",
    ["::7f00:1", "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "fc00::1",
     "fd00::1", "fe80::1", "fec0::1", "ff02::1", "5f00::1", "4000::1", "1fff:ffff::1",
     "2002:7f00:1::", "2001::1"],
)  # fmt: skip
def test_reserved_ipv6(text: str):
    """Only global unicast IPv6 addresses are allowed, without those that embed IPv4."""
    assert address_problem(ip_address(text), RULES)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("example.com", True), ("EXAMPLE.com.", True), ("hooks.example.com", True),
     ("badexample.com", False), ("example.com.evil.org", False), ("example.org", False),
     ("8.8.8.8", False), ("a.partner.net", True), ("partner.net", True)],
)  # fmt: skip
def test_list_of_domains(host: str, allowed: bool):  # noqa: FBT001
    """With a list of domains only they and names below them are accepted; without, any."""
    rules = CallbackRules(allowed_domains=("Example.com", "partner.net"))
    assert (problem_of(f"https://{host}/", rules) is None) == allowed
    assert problem_of(f"https://{host}/") is None


@pytest.mark.parametrize(
    "host",
    ["b\u00fccher.example", "\u2460\u2461\u2466.0.0.1", "127\u30020.0.1", "\uff4cocalhost",
     "local\u00adhost.example", "example.com\u2024", "\u212aexample.com"],
)  # fmt: skip
def test_nothing_is_repaired(host: str):
    """Text that another parser may fold into ASCII is refused, with advice on how to write it."""
    assert "xn--" in (problem_of(f"https://{host}/") or "")


@pytest.mark.parametrize(
    "label",
    ["xn--", "xn--a", "xn--abc-", "xn--BCHER-KVA0", "xn--ls8h", "xn--a-ecp",
     "xn--0000h", "ab--cd", "xn--99999999", "xn--4gbwdl-"],
)  # fmt: skip
def test_invalid_encodings(label: str):
    """An encoded label must be the canonical encoding of a valid label."""
    assert problem_of(f"https://{label}.example/")


def test_encoded_labels_for_ascii_are_refused():
    """An encoded label for plain ASCII, a capital or a full-width letter is refused."""
    for decoded in ("localhost", "\u00dc", "\uff41bc", "\u0301a", "a\u0308", "\U0001f600"):
        encoded = decoded.encode("punycode").decode()
        assert problem_of(f"https://xn--{encoded}.example/"), decoded


@pytest.mark.parametrize(
    "name",
    ["intranet", "x.localhost", "printer.local", "a.localdomain", "db.internal", "nas.home.arpa",
     "api.default.svc", "abc.onion", "x.invalid", "home.arpa", "API.Default.SVC."],
)  # fmt: skip
def test_local_names(name: str):
    """Names of local networks and names without a domain are refused."""
    assert problem_of(f"https://{name}/")


@pytest.mark.parametrize(
    "host",
    ["127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "010.8.8.8", "8.8.8.8.",
     "8.8.8", "8.8.8.8.8", "256.8.8.8", "8.8.8.08", "a.1", "example.0x", "example.0x1f",
     "1.2.3.0x4"],
)  # fmt: skip
def test_numbers_as_hosts(host: str):
    """A host that ends in a number must be a canonical dotted quad."""
    assert "valid address" in (problem_of(f"https://{host}/") or "")


def test_operators_networks():
    """The operator can allow a private range and refuse a public one."""
    assert problem_of("https://127.0.0.1/", LOOPBACK) is None
    assert problem_of("https://[::ffff:127.0.0.1]/", LOOPBACK) is None
    assert problem_of("https://10.0.0.1/", LOOPBACK)
    assert problem_of("https://localhost/", LOOPBACK)
    networks = (ip_network("8.8.8.0/24"), ip_network("127.0.0.2/32"))
    rules = CallbackRules(refused_networks=networks, allowed_networks=LOOPBACK.allowed_networks)
    assert "operator" in (problem_of("https://8.8.8.8/", rules) or "")
    assert problem_of("https://[::ffff:8.8.8.8]/", rules)
    assert problem_of("https://127.0.0.2/", rules)
    assert problem_of("https://127.0.0.1/", rules) is None


def spellings_that_count(address: IPv4Address) -> list[str]:
    """Return spellings that are read as this address."""
    high, low = divmod(int(address), 65_536)
    return [
        f"https://{address}/",
        f"https://{address}:8443/x",
        f"HTTPS://{address}?x",
        f"https://[::ffff:{address}]/",
        f"https://[::FFFF:{high:X}:{low:X}]:443/",
        f"https://[0:0:0:0:0:ffff:{high:04x}:{low:04x}]/",
    ]


def spellings_that_never_count(address: IPv4Address) -> list[str]:
    """Return spellings that are refused, whatever the address is."""
    number = int(address)
    a, b, c, d = address.packed
    high, low = divmod(number, 65_536)
    full_width = str(address).translate({48 + digit: 0xFF10 + digit for digit in range(10)})
    hosts = [
        f"{number}",
        f"0{number:o}",
        f"0x{number:x}",
        f"0X{number:X}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}",
        f"{a}.{b}.{c * 256 + d}",
        f"{a}.{number & 0xFFFFFF}",
        f"{a:03d}.{b}.{c}.0{d}",
        f"{address}.",
        f"{address}..",
        f"%3{str(a)[0]}{address}",
        full_width,
        str(address).replace(".", "\u3002"),
        f"[{address}]",
        f"[::{address}]",
        f"[::ffff:0:{address}]",
        f"[64:ff9b::{address}]",
        f"[64:ff9b:1::{address}]",
        f"[2002:{high:x}:{low:x}::]",
        f"[2001:0:{high:x}:{low:x}::]",
        f"[::ffff:{address}%1]",
        f"user@{address}",
    ]
    return [f"https://{host}/" for host in hosts]


addresses = st.one_of(
    st.integers(0, 2**32 - 1),
    st.sampled_from(REFUSED_IPV4).flatmap(lambda network: st.integers(*bounds(network))),
).map(IPv4Address)


@settings(max_examples=500, deadline=None)
@given(addresses)
def test_spellings(address: IPv4Address):
    """Every spelling of an IPv4 address is judged as the address itself, or refused."""
    allowed = expected_ipv4(int(address))
    assert (address_problem(address, RULES) is None) == allowed
    for text in spellings_that_count(address):
        assert (problem_of(text) is None) == allowed, text
    for text in spellings_that_never_count(address):
        assert problem_of(text), text


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        st.integers(0, 2**128 - 1),
        st.integers(2**125, 2**126 - 1),
        st.integers(0, 2**48 - 1),
        st.sampled_from(REFUSED_IPV6).flatmap(lambda network: st.integers(*bounds(network))),
    ).map(IPv6Address)
)
def test_spellings_of_ipv6(address: IPv6Address):
    """Every spelling of an IPv6 address is judged as the address itself."""
    allowed = expected_ipv6(int(address))
    for host in (str(address), address.exploded, address.exploded.upper()):
        assert (problem_of(f"https://[{host}]/") is None) == allowed, host
        assert problem_of(f"https://{host}/")
