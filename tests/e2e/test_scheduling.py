"""How Linux runs the threads of a service."""

import os
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has this policy")
def test_every_thread_is_scheduled_as_a_batch(any_service, alice):
    """Those of gRPC and of the database too: none interrupts another when it is woken."""
    alice.create(function="video.transcode")
    threads = os.listdir(f"/proc/{any_service.process.pid}/task")
    assert len(threads) > 4
    assert {os.sched_getscheduler(int(thread)) for thread in threads} == {os.SCHED_BATCH}
