"""The scenarios as data: the YAML files of ``scenarios/``. README.md describes their form."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import yaml

from tests.conformance import patterns, times
from tests.conformance.webhook import SignedHeaders

FOLDER: Final = Path(__file__).with_name("scenarios")
ROLES: Final[Mapping[str, Sequence[str]]] = {
    "alice": ("CALLER",),
    "bob": ("CALLER",),
    "wally": ("WORKER",),
    "wanda": ("WORKER",),
    "ada": ("ADMIN",),
}
"""The people of the scenarios, each with a client of its own, and their roles."""
WORKERS: Final = ("wally", "wanda")
SHARED: Final = ("service", "replica")
"""The things that all languages of a scenario share."""
OF_EACH: Final = ("proxy", "script", "received", "inbox", "key")
"""The things that each language has for itself."""
MAX_SHOWN: Final = 600
"""Length of a value in a report."""
OUTCOMES: Final = ("ok", "error")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step: a call of a person, or a command to something of the surroundings."""

    actor: str
    """A person, or a word of `SHARED` or `OF_EACH`."""
    action: Any
    """The name of the call, or the command."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Any] | None = None
    """`ok` or `error`, with the expectation."""
    begins: str | None = None
    """The name under which a later step finds the answer."""
    ends: str | None = None
    """The name of the call whose answer this step expects."""
    repeat: bool = False
    """Repeat the call until its answer is as expected."""
    unsupported: Sequence[str] = ()
    """The languages that may lack the value; there the scenario ends with this step."""
    differs: Sequence[str] = ()
    """The members whose values may differ from language to language."""
    within: tuple[float, float] | None = None
    """The seconds that the answer takes, at least and at most."""

    def __str__(self) -> str:
        """Return the step as a line of a report."""
        action = f"{self.actor}: {self.ends or self.action}"
        return f"{action} {shown(dict(self.arguments))}" if self.arguments else action


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A scenario, and the service that it needs."""

    id: str
    """The name of its file, and its own."""
    says: str
    steps: Sequence[Step]
    service: Mapping[str, Any]
    people: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """How people differ from the usual ones: their `roles` and the arguments of `connect`."""
    proxy: Sequence[str] = ()
    """The people whose connection goes through a proxy."""
    pairs: bool = False
    """Play it with every pair of languages: one of the callers, one of the workers."""


def shown(value: Any) -> str:
    """Return a text of the value that is not too long for a report."""
    text = str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} …"


class Problem(Exception):
    """A mistake in a scenario file."""


def read_scenarios(folder: Path = FOLDER) -> list[Scenario]:
    """Return the scenarios of all files, those that use the same service one after the other.

    Raises:
        Problem: A file does not have the form of a scenario.
    """
    found = [each for path in sorted(folder.glob("*.yaml")) for each in read_file(path)]
    found.sort(key=lambda scenario: json.dumps(scenario.service, sort_keys=True))
    ids = [scenario.id for scenario in found]
    if twice := {one for one in ids if ids.count(one) > 1}:
        raise Problem(f"these names stand twice: {', '.join(sorted(twice))}")
    return found


def read_file(path: Path) -> list[Scenario]:
    """Return the scenarios of one file."""
    content = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 - a safe loader
    service = content.get("service", {})
    return [
        _scenario(f"{path.stem}/{name}", service, row) for name, row in content["scenarios"].items()
    ]


def _scenario(name: str, service: Mapping[str, Any], row: Mapping[str, Any]) -> Scenario:
    allowed = {each.name for each in fields(Scenario)} - {"id", "service"}
    if unknown := row.keys() - allowed:
        raise Problem(f"{name}: unknown: {', '.join(sorted(unknown))}")
    steps = []
    for number, step in enumerate(row["steps"], 1):
        try:
            steps.append(_step(step))
        except Problem as problem:
            raise Problem(f"{name}, step {number}: {problem}") from None
    return Scenario(id=name, service=service, **(dict(row) | {"steps": steps}))


def _step(row: Mapping[str, Any]) -> Step:
    actors = [word for word in row if word in (*ROLES, *SHARED, *OF_EACH, "anyone", "end")]
    if len(actors) != 1:
        raise Problem(f"a step names one actor, not {actors or list(row)}")
    [actor] = actors
    known = {"with", *OUTCOMES, "begin", "until", "unsupported", "differs", "within", actor}
    if unknown := row.keys() - known:
        raise Problem(f"unknown: {', '.join(sorted(unknown))}")
    expected = {word: row[word] for word in OUTCOMES if word in row}
    return Step(
        actor=actor,
        action=row[actor],
        arguments=row.get("with", {}),
        expected=expected or None,
        begins=row.get("begin"),
        ends=row[actor] if actor == "end" else None,
        repeat=row.get("until", False),
        unsupported=row.get("unsupported", ()),
        differs=row.get("differs", ()),
        within=tuple(row["within"]) if "within" in row else None,
    )


class Loader(yaml.SafeLoader):
    """A loader of YAML that knows the tags of the scenarios."""


def _word(loader: yaml.SafeLoader, node: Any) -> str:
    return str(loader.construct_scalar(node))


def _nested(levels: int) -> Any:
    value: Any = "core"
    for _ in range(levels):
        value = {"a": value}
    return value


_STATES: Final = {"present": patterns.Present(), "absent": patterns.Absent()}
_TAGS: Final[Mapping[str, Any]] = {
    "!keep": lambda loader, node: patterns.Keep(_word(loader, node)),
    "!kept": lambda loader, node: patterns.Kept(_word(loader, node)),
    "!own": lambda loader, node: patterns.Own(_word(loader, node)),
    "!text": lambda loader, node: patterns.Text(_word(loader, node)),
    "!between": lambda loader, node: patterns.Between(*loader.construct_sequence(node)),
    "!is": lambda loader, node: _STATES[_word(loader, node)],
    "!large": lambda loader, node: "x" * int(_word(loader, node)),
    "!nested": lambda loader, node: _nested(int(_word(loader, node))),
    "!in": lambda loader, node: times.Ahead(float(_word(loader, node))),
    "!signed": lambda loader, node: SignedHeaders(**loader.construct_mapping(node, deep=True)),
}
for _tag, _construct in _TAGS.items():
    Loader.add_constructor(_tag, _construct)
