"""International host names in ASCII: each label as its A-label (IDNA 2008), ``xn--…``.

Everything behind the API sees only the ASCII form: it is stored, shown, resolved, sent and
compared. A label may be written in capitals and decomposed, which makes no difference to a name.
Beyond that nothing is mapped: full-width letters, circled digits, other dots and invisible
characters, which UTS 46 would fold into ASCII, are refused.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import idna

from milepost.domain.callback_url import RefusedUrl

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/?#:]*)(.*)", re.DOTALL)
_PROBLEM: Final = "has a host that is not a valid international name: write it as xn--…"


def ascii_url(text: str) -> str:
    """Return a URL with its host in ASCII, and the rest unchanged.

    Raises:
        RefusedUrl: the host is not a valid international name.
    """
    match = None if text.isascii() else _URL.fullmatch(text)
    if match is None:
        return text
    scheme, host, rest = match.groups()
    try:
        return f"{scheme}{ascii_name(host)}{rest}"
    except ValueError:
        raise RefusedUrl(_PROBLEM) from None


def ascii_name(name: str) -> str:
    """Return a host name in ASCII. Labels that are in ASCII are not checked.

    Raises:
        ValueError: another label is not valid.
    """
    return ".".join(map(_ascii_label, name.split(".")))


def _ascii_label(label: str) -> str:
    if label.isascii():
        return label
    # By character: the lower case of a whole word has a final sigma where the name has another.
    lower = [character.lower() for character in label]
    for before, after in zip(label, lower, strict=True):
        composed = unicodedata.normalize("NFC", after)
        if not before.isascii() and any(each.isascii() for each in composed):
            raise ValueError(before)  # such as the Kelvin sign, a look-alike of k
    return idna.alabel(unicodedata.normalize("NFC", "".join(lower))).decode("ascii")
