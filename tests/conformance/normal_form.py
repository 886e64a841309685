"""The normal form of answers, in which those of all languages are equal.

It replaces what differs from run to run: ids, times, names, and the texts of libraries.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

VARYING: Final = frozenset(
    {"retry_after", "duration", "trace_id", "traceparent", "value", "client", "stream", "work"}
)
"""The members whose value differs from run to run."""
OF_REPORTS: Final = frozenset({"revision", "progress_time"})
"""The members that depend on when a worker reports: left out here, named by expectations."""
_REPLACED: Final = (
    (re.compile(r"\d{4}-\d{2}-\d{2}T[\d:.]+(Z|[+-]\d{2}:\d{2})"), "<time>"),
    (re.compile(r"\b(op|msg|mp)_[0-9a-zA-Z]+"), r"\1_<id>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "<address>"),
)


def normal_form(answer: Any, word: str, differs: Sequence[str] = ()) -> Any:
    """Return the answer without what belongs to one run, or may differ.

    Args:
        answer: The answer, or a part of it.
        word: The word that makes the names of the run unique.
        differs: Further members whose value may differ.
    """
    match answer:
        case {"class": kind}:
            return {"class": kind, **_error(answer, word, differs)}
        case Mapping():
            return {
                name: "<value>" if _is_varying(name, member) else normal_form(member, word, differs)
                for name, member in answer.items()
                if name not in OF_REPORTS.union(differs)
            }
        case list():
            return [normal_form(item, word, differs) for item in answer]
        case str():
            return _text(answer, word)
        case bool() | None:
            return answer
        case _:
            return round(float(answer), 9)


def _is_varying(name: str, member: Any) -> bool:
    return name in VARYING and not isinstance(member, (dict, list))


def _error(error: Mapping[str, Any], word: str, differs: Sequence[str]) -> Mapping[str, Any]:
    """Return the facts of a refusal; a text without a reason is that of a library."""
    if not error.get("reason"):
        return {"code": error.get("code")}
    return {
        name: "<value>"
        if _is_varying(name, member) and member is not None
        else normal_form(member, word, differs)
        for name, member in error.items()
        if name not in differs
    }


def _text(text: str, word: str) -> str:
    found = text.replace(word, "<run>")
    for pattern, replacement in _REPLACED:
        found = pattern.sub(replacement, found)
    return found


def differences(one: Any, other: Any, place: str = "answer") -> list[str]:
    """Return the places in which two normal forms differ, with both values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return [
            line
            for name in sorted(one.keys() | other.keys())
            for line in differences(
                one.get(name, "<absent>"), other.get(name, "<absent>"), f"{place}.{name}"
            )
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line
            for number, (each, another) in enumerate(zip(one, other, strict=True))
            for line in differences(each, another, f"{place}[{number}]")
        ]
    return [] if one == other else [f"{place}: {one!r} and {other!r}"]
