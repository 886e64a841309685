"""International host names, and callback URLs with them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.api.convert import Fields
from milepost.api.create_fields import CreateFields
from milepost.domain.callback_url import CallbackRules, RefusedUrl, read_callback_url
from milepost.domain.errors import InvalidRequest
from milepost.domain.limits import Limits
from milepost.gen.milepost.v1 import operation_service_pb2, webhook_service_pb2
from milepost.hostnames import ascii_name, ascii_url
from tests.unit.callback_rules import RULES, problem_of

NAMES = [
    ("b\u00fccher.example.com", "xn--bcher-kva.example.com"),
    ("B\u00dcCHER.example.com", "xn--bcher-kva.example.com"),
    ("bu\u0308cher.example.com", "xn--bcher-kva.example.com"),
    ("xn--bcher-kva.example.com", "xn--bcher-kva.example.com"),
    ("fa\u00df.de", "xn--fa-hia.de"),
    ("\u03a3\u0391\u03a3.gr", "xn--mxa9ab.gr"),
    ("\u4f8b\u3048.\u30c6\u30b9\u30c8", "xn--r8jz45g.xn--zckzah"),
    ("col\u00b7lectiu.cat", "xn--collectiu-2pa.cat"),
    ("\u30b2\u30fc\u30e0\u30fb\u30e1\u30c7\u30a3\u30a2.jp", "xn--cckb8byeyfg5pg.jp"),
    ("\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.com", "xn--mgba3gch31f060k.com"),
    ("a.b\u00fccher.example.", "a.xn--bcher-kva.example."),
]
LOOK_ALIKES = [
    "127\u30020.0.1", "127\uff0e0.0.1", "\uff11\uff12\uff17.0.0.1", "\u2460\u2461\u2466.0.0.1",
    "\u00b9\u00b2\u2077.0.0.1", "\uff4cocalhost", "local\u00adhost.example", "example.com\u2024",
    "\u212aexample.com", "\u0130nternal.example", "\u017fvc.example", "b%C3%BCcher\u00fc.example",
    "a\u200bb.example", "a\u200cb.example", "\u2603.example", "\U0001f600.example",
    "\u0301a.example", "\u0661\u0662\u0667.0.0.1", "-\u00fc.example", "xn--\u00fc.example",
    "\u00fc\\@example.com", "\u00fc@example.com", "[\u00fc]", "\u00fc example.com",
    "\u202eab.example",
    "\U0001d7cf\U0001d7d0.0.0.1", "l\u00b7a.example", "\u00fc\u00e9" * 30 + ".example",
]  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_names_are_encoded(name: str, expected: str):
    """A name in any letter case and composition becomes its A-labels, and the rest stays."""
    assert ascii_name(name) == expected
    url = read_callback_url(ascii_url(f"https://{name}:8443/%C3%BC?a=1"), RULES)
    assert url.text == f"https://{expected}:8443/%C3%BC?a=1"
    assert (url.host, url.port) == (expected.removesuffix("."), 8443)


@pytest.mark.parametrize("host", LOOK_ALIKES)
def test_look_alikes_are_refused(host: str):
    """Characters that other parsers fold into ASCII are refused, and so are invalid names."""
    with pytest.raises(RefusedUrl):
        read_callback_url(ascii_url(f"https://{host}/"), RULES)


@pytest.mark.parametrize(
    "rest", ["/\u00fc", "/?q=\u2603", ":\uff14\uff14\uff13/", "#\u00fc", "/\u202e"]
)
def test_rest_stays_in_ascii(rest: str):
    """Beyond the host only ASCII is accepted."""
    assert "ASCII" in (problem_of(ascii_url(f"https://b\u00fccher.example{rest}")) or "")


def test_reserved_names_and_domains():
    """The rules for names apply to the A-labels."""
    assert "internal" in (problem_of(ascii_url("https://b\u00fccher.internal/")) or "")
    rules = CallbackRules(allowed_domains=("xn--bcher-kva.example",))
    assert problem_of(ascii_url("https://a.b\u00fccher.example/"), rules) is None


def test_requests_carry_the_ascii_form():
    """A create and a test hold the A-label, so that equal requests have equal fingerprints."""
    url, expected = "https://b\u00fccher.example/x", "https://xn--bcher-kva.example/x"
    create = operation_service_pb2.CreateOperationRequest
    found = CreateFields(create(function="f", callback_url=url), Limits()).create_request()
    same = CreateFields(create(function="f", callback_url=expected), Limits()).create_request()
    assert found.callback_url == expected
    assert found.fingerprint == same.fingerprint
    test = webhook_service_pb2.SendTestWebhookRequest(callback_url=url)
    assert Fields(test, Limits()).callback_url(required=True) == expected


def test_refusal_names_the_field():
    """An invalid name violates `callback_url`."""
    request = operation_service_pb2.CreateOperationRequest(
        function="f", callback_url="https://\u2460.example/"
    )
    fields = CreateFields(request, Limits())
    fields.create_request()
    with pytest.raises(InvalidRequest) as refused:
        fields.done()
    (violation,) = refused.value.violations
    assert violation.field == "callback_url"
    assert "xn--" in violation.problem


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(min_codepoint=0x80) | st.sampled_from("ax1.-@:/[]"), max_size=20))
def test_anything_is_ascii_or_refused(host: str):
    """Any host is refused, or becomes a name in ASCII whose ASCII letters were written so."""
    try:
        url = read_callback_url(ascii_url(f"https://{host}.example/"), RULES)
    except RefusedUrl:
        return
    assert url.host.isascii()
    for label in url.host.split("."):
        assert label.startswith("xn--") or label in f"{host}.example".lower()
