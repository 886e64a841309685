"""The filter of ListOperations of google.longrunning: a small part of AIP-160."""

from __future__ import annotations

import re
from typing import Final

from milepost.domain.operation import Status
from milepost.domain.selection import Selection
from milepost.domain.transitions import ACTIVE, TERMINAL

MAX_LENGTH: Final = 1_000
GRAMMAR: Final = (
    "must be conditions that AND joins, each at most once: done = true or false,"
    ' metadata.function = "name", metadata.status = a status (but not beside done)'
)
_CONDITION: Final = re.compile(
    r'\s*(?P<field>[a-z.]+)\s*=\s*(?:"(?P<quoted>[^"\\\x00-\x1f\x7f]*)"|(?P<bare>[A-Za-z0-9_.:/-]+))\s*'
)
_AND: Final = re.compile(r"AND(?=\s)")
_DONE: Final = {"true": TERMINAL, "false": ACTIVE}
_STATUSES: Final = {str(status): frozenset({status}) for status in Status}


def selection_of(text: str) -> Selection:
    """Return the operations that a filter selects; an empty filter selects all.

    Raises:
        ValueError: the text is no filter of this kind; the message says what one is.
    """
    conditions = _conditions(text)
    statuses = {name: conditions.pop(name) for name in _BY_STATUS if name in conditions}
    function = conditions.pop("metadata.function", None)
    if conditions or len(statuses) > 1 or function == "":
        raise ValueError(GRAMMAR)
    selected: frozenset[Status] = frozenset()
    for name, value in statuses.items():
        if value not in _BY_STATUS[name]:
            raise ValueError(GRAMMAR)
        selected = _BY_STATUS[name][value]
    return Selection(statuses=tuple(sorted(selected)), function=function)


_BY_STATUS: Final = {"done": _DONE, "metadata.status": _STATUSES}


def _conditions(text: str) -> dict[str, str]:
    """Return the value of each field that a filter names."""
    found: dict[str, str] = {}
    place = 0
    while text.strip():
        condition = _CONDITION.match(text, place) if len(text) <= MAX_LENGTH else None
        if condition is None or condition["field"] in found:
            raise ValueError(GRAMMAR)
        quoted = condition["quoted"]
        found[condition["field"]] = condition["bare"] if quoted is None else quoted
        place = condition.end()
        if place == len(text):
            break
        joined = _AND.match(text, place)
        if joined is None:
            raise ValueError(GRAMMAR)
        place = joined.end()
    return found
