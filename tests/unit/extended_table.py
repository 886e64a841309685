"""A release with one more status and three more transitions, run in a separate interpreter.

Prints the resulting sets of statuses, and the places that did not follow, as JSON.
"""

import json
import re
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

ADDED = {
    "milepost.domain.operation": [
        ('    CANCELLED = "CANCELLED"\n', '    CANCELLED = "CANCELLED"\n    PAUSED = "PAUSED"\n'),
    ],
    "milepost.domain.transitions": [
        (
            '    PURGE = "purge"\n',
            '    PURGE = "purge"\n    PAUSE = "pause"\n    RESUME = "resume"\n',
        ),
        (
            '    Transition.CANCEL: _rule(\n        "PENDING PROCESSING"',
            """    Transition.PAUSE: _rule("PROCESSING", Status.PAUSED, "owner", "paused"),
    Transition.RESUME: _rule("PAUSED", Status.PROCESSING, "owner", "resumed"),
    Transition.CANCEL: _rule(
        "PENDING PROCESSING PAUSED\"""",
        ),
    ],
}


class Extended(SourceFileLoader):
    """Loads a module with the added rows."""

    def get_data(self, path: str) -> bytes:
        """Return the source with each addition made, never a compiled file."""
        if not path.endswith(".py"):
            raise OSError(path)
        text = super().get_data(path).decode()
        for old, new in ADDED[self.name]:
            assert old in text
            text = text.replace(old, new)
        return text.encode()


class Finder(MetaPathFinder):
    """Finds the modules that are extended."""

    def find_spec(
        self, name: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module with the loader that extends it."""
        spec = PathFinder.find_spec(name, path, target) if name in ADDED else None
        if spec is not None:
            assert spec.origin is not None
            loader: Loader = Extended(name, spec.origin)
            spec.loader = loader
        return spec


def main() -> None:
    """Build everything that derives from the table, and print it."""
    sys.meta_path.insert(0, Finder())
    from milepost.domain import delivery, transitions  # noqa: PLC0415 - after the finder
    from milepost.domain.operation import Status  # noqa: PLC0415
    from milepost.domain.sweep import SWEEPS  # noqa: PLC0415
    from milepost.storage import effects, predicates, quotas, sweeps, tables  # noqa: PLC0415

    def mentioned(condition: Any) -> list[str]:
        compiled = condition.compile(dialect=sqlite.dialect())
        return sorted(set(re.findall(r"'([A-Z]+)'", str(compiled))))

    def checks_of(status: str) -> list[str]:
        return sorted(
            str(check.name)
            for check in tables.operations.constraints
            if isinstance(check, sa.CheckConstraint) and f"'{status}'" in str(check.sqltext)
        )

    def number() -> str:
        try:
            import milepost.api.messages  # noqa: F401, PLC0415
        except ValueError as error:
            return str(error)
        return ""

    by_request = {
        transition
        for transition, rule in transitions.TABLE.items()
        if rule.sources
        and transition is not transitions.Transition.CLAIM
        and rule.by != {"sweeper"}
    }
    report = {
        "active": sorted(transitions.ACTIVE),
        "terminal": sorted(transitions.TERMINAL),
        "deletable": sorted(transitions.DELETABLE),
        "claimable": sorted(transitions.CLAIMABLE),
        "starting": sorted(transitions.STARTING),
        "quota": mentioned(quotas.count_active("alice", 1)),
        "hidden when expired": mentioned(predicates.unexpired()),
        "due": {sweep.name: mentioned(sweeps.due(sweep)[0][0]) for sweep in SWEEPS},
        "indexes": {
            str(index.name): mentioned(index.dialect_options["sqlite"]["where"])
            for index in tables.operations.indexes
            if index.dialect_options["sqlite"]["where"] is not None
        },
        "checks": checks_of("PAUSED"),
        "after the event": delivery.status_after("operation.paused", Status.FAILED),
        "without effects": sorted(by_request - set(effects.EFFECTS)),
        "number": number(),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
