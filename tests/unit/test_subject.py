"""The one rule for subjects."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.domain.subject import MAX_LENGTH, is_reserved, subject_problem

GOOD = (
    "alice",
    "alice@example.com",
    "Alice Smith",
    "https://issuer.example|alice",
    "josé",
    "王小明",
    "spiffe://example.com/ns/shop",
    "a" * MAX_LENGTH,
)
BAD = {
    "empty": "",
    "blank": " ",
    "too long": "a" * (MAX_LENGTH + 1),
    "space before": " alice",
    "space behind": "alice ",
    "two spaces": "alice  smith",
    "tab": "alice\tsmith",
    "line end": "alice\n",
    "NUL": "alice\0",
    "no-break space": "alice\u00a0smith",
    "ideographic space": "alice\u3000",
    "zero-width space": "ali\u200bce",
    "zero-width joiner": "alice\u200d",
    "word joiner": "\u2060alice",
    "byte order mark": "\ufeffalice",
    "soft hyphen": "ali\u00adce",
    "right-to-left override": "\u202eecila",
    "left-to-right mark": "alice\u200e",
    "isolate": "\u2067alice\u2069",
    "Hangul filler": "alice\u3164",
    "half-width filler": "alice\uffa0",
    "Braille blank": "alice\u2800",
    "variation selector": "alice\ufe0f",
    "supplementary selector": "alice\U000e0100",
    "grapheme joiner": "ali\u034fce",
    "tag": "alice\U000e0041",
    "private use": "alice\ue000",
    "unassigned": "alice\u0378",
    "surrogate": "alice\ud800",
    "decomposed": unicodedata.normalize("NFD", "josé"),
}


@pytest.mark.parametrize("subject", GOOD)
def test_subjects_are_visible_texts(subject):
    """A visible text of any script is a subject."""
    assert subject_problem(subject) is None


@pytest.mark.parametrize("name", BAD)
def test_texts_that_look_like_other_subjects_are_refused(name):
    """A text that is padded, invisible in part, or shown like another one, is no subject."""
    assert subject_problem(BAD[name])


@given(st.text(max_size=8))
def test_subject_shows_all_of_its_characters(text):
    """No subject has a character without a width, or another spelling."""
    if subject_problem(text) is None:
        assert not {unicodedata.category(each) for each in text} & {"Cc", "Cf", "Cs", "Co", "Cn"}
        assert text == unicodedata.normalize("NFC", " ".join(text.split()))


@pytest.mark.parametrize("subject", ["web:alice", "WEB:alice", "web:"])
def test_prefix_of_an_issuer_is_reserved(subject):
    """A subject may not begin like those of a trusted issuer, in any letter case."""
    assert is_reserved(subject, ("login:", "web:"))
    assert subject_problem(subject, ("login:", "web:"))
    assert subject_problem(subject) is None
    assert subject_problem("alice", ("web:",)) is None
