"""The label `function` of metrics, whose number of values is bounded."""

from __future__ import annotations

from typing import Final

MAX_FUNCTIONS: Final = 100
"""Functions with a label of their own in one process; further ones share `OTHER`."""
OTHER: Final = "other"


class FunctionLabels:
    """The labels of functions: callers choose the names, so their number has to be bounded."""

    def __init__(self, max_functions: int = MAX_FUNCTIONS) -> None:
        """Give the first `max_functions` functions a label of their own."""
        self._max_functions = max_functions
        self._labels: dict[str, str] = {}

    def label(self, function: str) -> str:
        """Return the label of a function: its name, or `OTHER`."""
        found = self._labels.get(function)
        if found is None:
            if len(self._labels) >= self._max_functions:
                return OTHER
            found = self._labels[function] = function
        return found
