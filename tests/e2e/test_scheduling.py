"""How Linux runs the threads of a service."""

import os
from pathlib import Path


def test_every_thread_is_scheduled_as_a_batch(any_service, alice):
    """Those of gRPC and of the database too: none interrupts another when it is woken."""
    alice.create(function="video.transcode")
    threads = list(Path(f"/proc/{any_service.process.pid}/task").iterdir())
    assert len(threads) > 4
    assert {os.sched_getscheduler(int(thread.name)) for thread in threads} == {os.SCHED_BATCH}
