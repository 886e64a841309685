"""The preference ``wait`` of a request (RFC 7240): for how long the answer may be held back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER: Final = "prefer"
# Possessive throughout (`*+`): what does not fit is found out in one go, however long it is.
_PREFERENCE: Final = re.compile(
    r"""\s*+ (?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]++)?           # a token
        \s*+ (?:=\s*+ (?:"(?P<quoted>(?:[^"\\]|\\.)*+)" | (?P<value>[^\s;,"]*+)) )?
        \s*+ (?:;(?:[^",]|"(?:[^"\\]|\\.)*+")*+)?              # parameters say nothing to us
        (?:,|$)""",
    re.VERBOSE | re.ASCII,
)
_SECONDS: Final = re.compile(r"\d{1,9}", re.ASCII)


def preferred_wait(metadata: Iterable[tuple[str, str | bytes]]) -> int:
    """Return the seconds of the preference ``wait``; 0 if it is absent or invalid.

    Where there are several the first one counts. What is malformed is as if it were not there.
    """
    for header, text in metadata:
        if header != HEADER or isinstance(text, bytes):
            continue
        place = 0
        while place < len(text) and (found := _PREFERENCE.match(text, place)):
            if (found["name"] or "").lower() == "wait":
                value = found["value"] if found["quoted"] is None else found["quoted"]
                return int(value) if value and _SECONDS.fullmatch(value) else 0
            place = found.end()
    return 0
