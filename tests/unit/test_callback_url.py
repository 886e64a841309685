"""Callback URLs: the accepted ones and their parts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.domain.callback_url import CallbackRules, RefusedUrl, read_callback_url
from tests.unit.callback_rules import PLAIN, RULES, problem_of


def test_public_url_is_accepted_unchanged():
    """A public https URL is accepted, and its text is kept as it is."""
    url = read_callback_url("https://Example.com/Callback?a=1&&b=%2F", RULES)
    assert url.text == "https://Example.com/Callback?a=1&&b=%2F"
    assert (url.scheme, url.host, url.port) == ("https", "example.com", 443)
    assert url.path_and_query == "/Callback?a=1&&b=%2F"
    assert url.address is None


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("https://example.com", "example.com", 443, "/"),
        ("https://example.com:/x", "example.com", 443, "/x"),
        ("https://example.com:443?x", "example.com", 443, "/?x"),
        ("HTTPS://EXAMPLE.COM:8443/", "example.com", 8443, "/"),
        ("https://example.com./a/../b", "example.com", 443, "/a/../b"),
        ("https://xn--bcher-kva.example/@", "xn--bcher-kva.example", 443, "/@"),
        ("https://xn--strae-oqa.example/", "xn--strae-oqa.example", 443, "/"),
        ("https://a-1.b2.example.co.uk/x:y", "a-1.b2.example.co.uk", 443, "/x:y"),
        ("https://8.8.8.8/", "8.8.8.8", 443, "/"),
        ("https://[2606:4700::1111]:8443/", "2606:4700::1111", 8443, "/"),
        ("https://[2606:4700:0::0:1111]/", "2606:4700::1111", 443, "/"),
        ("https://[::FFFF:8.8.8.8]/", "::ffff:808:808", 443, "/"),
    ],
)
def test_accepted_parts(text: str, host: str, port: int, path: str):
    """An accepted URL is read into its parts once, and only they are used afterwards."""
    url = read_callback_url(text, RULES)
    assert (url.host, url.port, url.path_and_query) == (host, port, path)
    assert (url.address is None) == host[-1].isalpha()


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u3000"])
def test_blank(text: str):
    """An empty or blank URL is refused, with the advice to omit it."""
    assert "leave it out" in (problem_of(text) or "")


@pytest.mark.parametrize(
    "text",
    [
        "https://[::1", "https://::1/", "https://[::1]x/", "https://[[::1]]/", "https://a]b.example/",
        "https://example.com:x/", "https://example.com:443:443/", "https://[v1.x]/", "https://[]/",
        "https://[8.8.8.8]/", "https://[2606:4700::1%25eth0]/", "https://[2606:4700::1%1]/",
        "https://example..com/", "https://.example.com/", "https://example.com../", "https://./",
        "https://-a.example.com/", "https://a-.example.com/", "https://a_b.example.com/",
        "https://ex%61mple.com/", "https://*.example.com/", "https://a,b.example.com/",
        f"https://{'a' * 64}.example.com/", f"https://{'a.' * 130}com/",
    ],
)  # fmt: skip
def test_unreadable(text: str):
    """A URL whose host or port is ambiguous or unreadable is refused."""
    assert problem_of(text)


@pytest.mark.parametrize(
    "text",
    ["example.com", "//example.com/x", "/callback", "https:", "https:/example.com/", "https://",
     "https:///x", "https://?x", "https:example.com", "://example.com", "https://:443/"],
)  # fmt: skip
def test_without_scheme_or_host(text: str):
    """A URL without scheme or host is refused."""
    assert problem_of(text)


def test_http_is_refused():
    """Plain http is refused, and the text names HTTPS."""
    assert "HTTPS" in (problem_of("http://example.com/callback") or "")


def test_http_can_be_allowed():
    """If the operator allows http, it is accepted and every other rule still holds."""
    assert read_callback_url("http://example.com/x", PLAIN).port == 80
    assert read_callback_url("http://example.com:8080/x", PLAIN).port == 8080
    assert "HTTPS" not in (problem_of("http://localhost/x", PLAIN) or "")
    for text in ("http://localhost/", "http://10.0.0.1/", "http://a.internal/", "http://a@b.com/"):
        assert problem_of(text, PLAIN), text


@pytest.mark.parametrize(
    "scheme", ["file", "gopher", "ftp", "dict", "ldap", "ws", "unix", "httpss"]
)
@pytest.mark.parametrize("rules", [RULES, PLAIN])
def test_other_schemes(scheme: str, rules: CallbackRules):
    """Every other scheme is refused, also if http is allowed."""
    assert "HTTPS" in (problem_of(f"{scheme}://example.com/x", rules) or "")
    assert problem_of(f"{scheme}:///etc/passwd", rules)


def test_host_problem_comes_first():
    """The problem of the host is reported together with that of the scheme, and before it."""
    problem = problem_of("http://localhost:6379/") or ""
    assert problem.index("localhost") < problem.index("port") < problem.index("HTTPS")


def test_length():
    """2,048 characters are accepted, 2,049 are not."""
    text = "https://example.com/".ljust(2048, "a")
    assert problem_of(text) is None
    assert "2048" in (problem_of(f"{text}a") or "")
    assert problem_of(text, CallbackRules(max_length=2047))


@pytest.mark.parametrize(
    "text",
    ["https://exa mple.com/", "https://example.com/a b", "https://example.com/\x00",
     "https://exam\tple.com/", "https://example.com/\r\nX: y", "https://example.com\n",
     "https://hooks.example.com\\@127.0.0.1/", "https://example.com/\x7f", " https://example.com/"],
)  # fmt: skip
def test_characters(text: str):
    """Control characters, spaces and backslashes are refused at every position."""
    assert "control characters" in (problem_of(text) or "")


@pytest.mark.parametrize(
    "text",
    ["https://user@example.com/", "https://user:pass@example.com/", "https://@example.com/",
     "https://example.com@8.8.8.8/", "https://a@b@example.com/", "https://:@example.com/"],
)  # fmt: skip
def test_user_info(text: str):
    """A user or a password is refused, and neither is quoted."""
    problem = problem_of(text) or ""
    assert "user or a password" in problem
    assert "pass@" not in problem


def test_fragment():
    """A fragment is refused, an empty one as well."""
    assert "fragment" in (problem_of("https://example.com/#x") or "")
    assert "fragment" in (problem_of("https://example.com/#") or "")
    assert problem_of("https://evil.example#@example.com/")


@pytest.mark.parametrize("port", ["0", "22", "80", "8080", "6379", "65536", "0443", "+443", "443 "])
def test_ports(port: str):
    """Only 443 and 8443 are accepted, and only written plainly."""
    assert problem_of(f"https://example.com:{port}/")


def test_operators_ports():
    """The operator can allow more ports."""
    rules = CallbackRules(allowed_ports=(9443,))
    assert read_callback_url("https://example.com:9443/", rules).port == 9443
    assert problem_of("https://example.com:9444/", rules)


@settings(max_examples=500, deadline=None)
@given(
    st.text(st.sampled_from("https:/@.[]%#?\\-_ax1\u00fc\u3002\t "), max_size=40)
    | st.text(max_size=40)
)
def test_anything(rest: str):
    """Any text is refused, or read into parts that fit their rules."""
    try:
        url = read_callback_url(f"https://{rest}", RULES)
    except RefusedUrl:
        return
    assert url.host.isascii()
    assert url.host == url.host.lower()
    assert url.port in RULES.ports
    assert url.path_and_query.startswith("/")
