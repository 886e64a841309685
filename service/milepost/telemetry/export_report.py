"""The outcome of exports to a collector: failed ones are counted, and the log says why."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from milepost.telemetry.library_output import captured_library_output, log_on_loop
from milepost.telemetry.logs import log
from milepost.telemetry.metrics import record_failed_export

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.telemetry.otlp import Signal

_CREDENTIALS: Final = re.compile(r"[^\s/]*@")
_NOUNS: Final[dict[Signal, str]] = {"traces": "spans", "metrics": "metrics"}
_GRPC_EXPORTERS: Final = "opentelemetry.exporter.otlp.proto.grpc.exporter"
"""The logger that the exporters of all signals share."""


class ExportReport:
    """Counts the failed exports of one signal. Of several in a row the first one is logged."""

    def __init__(self, signal: Signal) -> None:
        """Report on exports of a signal."""
        self._signal: Signal = signal
        self._noun = _NOUNS[signal]
        self.is_away = False
        """True while the collector does not take exports."""
        _report_repeated_causes()

    def run(self, export: Callable[[], bool]) -> bool:
        """Return True if an export succeeds, which `export` returns; it may raise, too."""
        with captured_library_output() as reported:
            try:
                succeeded = export()
            except Exception as error:  # noqa: BLE001 - the next one may succeed
                reported.append(type(error).__name__)
                succeeded = False
        if succeeded:
            self._note_success()
        else:
            self._note_failure(reported)
        return succeeded

    def _note_success(self) -> None:
        if self.is_away:
            log_on_loop(lambda: log.info(f"{self._noun} exported again"))
        self.is_away = False

    def _note_failure(self, reported: list[str]) -> None:
        record_failed_export(self._signal)
        problem = _CREDENTIALS.sub("***@", reported[0] if reported else "unknown")
        if not self.is_away:
            log_on_loop(lambda: log.error(f"{self._noun} not exported", problem=problem))
        self.is_away = True


def _report_repeated_causes() -> None:
    """Let the exporters report a cause to each signal.

    The SDK filters a record that is like the last one, also if that was of another signal.
    """
    logger = logging.getLogger(_GRPC_EXPORTERS)
    for each in list(logger.filters):
        logger.removeFilter(each)
