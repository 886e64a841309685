"""A model of the life of one operation, written from the specification and not from the table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

MAX_ATTEMPTS: Final = 3
STEPS: Final = (
    "start",
    "claim",
    "progress",
    "checkpoint",
    "complete",
    "fail",
    "retry",
    "release",
    "release later",
    "request cancel",
    "acknowledge",
    "cancel",
    "lease ends",
    "grace ends",
    "run timeout ends",
    "queue timeout ends",
    "wait ends",
)
"""Requests, and times that come."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What the specification says of an operation."""

    status: str = "PENDING"
    revision: int = 1
    attempt: int = 0
    failed_attempts: int = 0
    has_progress: bool = False
    has_checkpoint: bool = False
    is_leased: bool = False
    is_waiting: bool = False
    is_cancelling: bool = False
    history: tuple[str, ...] = ("create",)
    """Every recorded transition."""

    @property
    def is_active(self) -> bool:
        """True while the operation counts against the quota of its owner."""
        return self.status in {"PENDING", "PROCESSING"}

    def after(self, step: str) -> Model:
        """Return the model after a step; the same one if the step is refused or not due."""
        if self.status == "PENDING":
            return self._after_pending(step)
        return self._after_processing(step) if self.status == "PROCESSING" else self

    def _after_pending(self, step: str) -> Model:  # noqa: C901, PLR0911 - one case a step
        match step:
            case "start":
                return self._begun("start")
            case "progress":
                return self._begun("progress", has_progress=True)
            case "checkpoint":
                return self._begun("progress", has_checkpoint=True)
            case "claim" if not self.is_waiting:
                return self._begun("claim", is_leased=True)
            case "fail":
                return self._ended("FAILED", "fail")
            case "cancel" | "request cancel":
                return self._ended("CANCELLED", "cancel")
            case "queue timeout ends":
                return self._ended("FAILED", "time_out")
            case "wait ends":
                return replace(self, is_waiting=False)
        return self

    def _after_processing(self, step: str) -> Model:  # noqa: C901, PLR0911 - one case a step
        match step:
            case "progress":
                return replace(self, revision=self.revision + 1, has_progress=True)
            case "checkpoint":
                return replace(self, revision=self.revision + 1, has_checkpoint=True)
            case "complete":
                return self._ended("COMPLETED", "complete", has_progress=True)
            case "fail":
                return self._ended("FAILED", "fail")
            case "retry":
                return self._attempt_failed("retry", last="fail", is_waiting=True)
            case "run timeout ends":
                return self._attempt_failed("retry", last="abandon", is_waiting=True)
            case "release" | "release later" if not self.is_cancelling:
                return self._returned("release", is_waiting=step == "release later")
            case "lease ends" if self.is_leased and not self.is_cancelling:
                return self._attempt_failed("release", last="abandon", is_waiting=False)
            case "request cancel":
                return self._recorded("request_cancel", is_cancelling=True)
            case "cancel":
                return self._ended("CANCELLED", "cancel")
        return self._after_request_to_cancel(step) if self.is_cancelling else self

    def _after_request_to_cancel(self, step: str) -> Model:
        match step:
            case "acknowledge":
                return self._ended("CANCELLED", "acknowledge")
            case "release" | "release later" | "grace ends":
                return self._ended("CANCELLED", "cancel")
            case "lease ends" if self.is_leased:
                return self._ended("CANCELLED", "cancel")
        return self

    def _attempt_failed(self, name: str, *, last: str, is_waiting: bool) -> Model:
        failed = self.failed_attempts + 1
        if failed < MAX_ATTEMPTS and not self.is_cancelling:
            return self._returned(name, failed_attempts=failed, is_waiting=is_waiting)
        return self._ended("FAILED", last, failed_attempts=failed)

    def _begun(self, name: str, **changes: Any) -> Model:
        changes = {"attempt": self.attempt + 1, "is_waiting": False, **changes}
        return self._recorded(name, status="PROCESSING", **changes)

    def _returned(self, name: str, **changes: Any) -> Model:
        cleared = {"has_progress": False, "is_leased": False}
        return self._recorded(name, status="PENDING", **cleared, **changes)

    def _ended(self, status: str, name: str, **changes: Any) -> Model:
        cleared = dict.fromkeys(("has_checkpoint", "is_leased", "is_waiting"), False)
        return self._recorded(name, status=status, **cleared, **changes)

    def _recorded(self, name: str, **changes: Any) -> Model:
        history = (*self.history, name)
        return replace(self, revision=self.revision + 1, history=history, **changes)
