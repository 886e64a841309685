"""The checker: every check over one history and the final tables. It has no state and no I/O."""

from collections import Counter
from collections.abc import Mapping, Sequence

from tests.faults.proof.call_checks import check_answers, check_refusals, check_requests
from tests.faults.proof.history import History
from tests.faults.proof.lease_checks import check_leases
from tests.faults.proof.lifecycle_checks import check_lifecycles
from tests.faults.proof.quota_checks import check_quotas
from tests.faults.proof.read_checks import check_reads, check_watches
from tests.faults.proof.tables import Tables
from tests.faults.proof.violations import Kind, Violation
from tests.faults.proof.webhook_checks import check_webhooks

CHECKS = (
    check_lifecycles,
    check_answers,
    check_requests,
    check_refusals,
    check_reads,
    check_watches,
    check_leases,
    check_webhooks,
)


def check(
    history: History, tables: Tables, quotas: Mapping[str, int] | None = None
) -> Sequence[Violation]:
    """Return every violation; `quotas` are those of owners that have one of their own."""
    found = [violation for one in CHECKS for violation in one(history, tables)]
    return [*found, *check_quotas(history, tables, quotas or {})]


def counts(violations: Sequence[Violation]) -> Mapping[Kind, int]:
    """Return the number of violations of every kind, also of those without any."""
    found = Counter(violation.kind for violation in violations)
    return {kind: found[kind] for kind in Kind}
