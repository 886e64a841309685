"""The one rule for subjects, whichever credential they come from: key, token or certificate.

A subject is compared letter for letter, and people compare it by its looks. So a subject whose
looks differ from its letters is refused: invisible characters, padding, and forms that Unicode
shows alike. The subjects of a trusted issuer begin with a prefix, and no other subject may.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LENGTH: Final = 255
"""Maximum length of a subject, in characters."""
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
"""The characters without a glyph that `str.isprintable` admits: fillers, and variation selectors
(Default_Ignorable_Code_Point of Unicode), and the blank of Braille."""


def subject_problem(subject: str, reserved: Iterable[str] = ()) -> str | None:
    """Return why a text cannot be a subject, or None if it can.

    Args:
        subject: the text.
        reserved: the prefixes of the subjects of trusted issuers, if `subject` is of another
            origin.
    """
    found = {
        "must not be blank": not subject.strip(),
        f"must be at most {MAX_LENGTH} characters, found {len(subject)}": len(subject) > MAX_LENGTH,
        "must not contain control characters, or others that cannot be seen": (
            not subject.isprintable() or _INVISIBLE.search(subject)
        ),
        "must not begin or end with a space, or have two in a row": (
            subject != " ".join(subject.split())
        ),
        "must be in the normal form NFC of Unicode": not unicodedata.is_normalized("NFC", subject),
        "must not begin like the subjects of a trusted issuer": is_reserved(subject, reserved),
    }
    return next((problem for problem, is_present in found.items() if is_present), None)


def is_reserved(subject: str, reserved: Iterable[str]) -> bool:
    """Return True if a subject begins with one of the prefixes, in any letter case."""
    folded = subject.casefold()
    return any(folded.startswith(prefix.casefold()) for prefix in reserved)
