"""The scheduling policy of the threads of a service."""

import os
from pathlib import Path

from tests.e2e.service import Service


def policies(service: Service) -> list[int]:
    """Return the policy of each thread of a service, with those of gRPC and of the database."""
    service.client("alice").create(function="video.transcode")
    assert service.process is not None
    threads = list(Path(f"/proc/{service.process.pid}/task").iterdir())
    assert len(threads) > 4
    return [os.sched_getscheduler(int(thread.name)) for thread in threads]


def test_service_keeps_the_policy_of_the_host(any_service):
    """By default a service runs under the policy that it was started with."""
    assert set(policies(any_service)) == {os.sched_getscheduler(0)}


def test_batch_scheduling_is_a_setting(database_url, tmp_path):
    """With the setting every thread runs under SCHED_BATCH, so that no thread preempts another."""
    with Service(database_url, tmp_path, batch_scheduling="true") as service:
        assert set(policies(service)) == {os.SCHED_BATCH}
