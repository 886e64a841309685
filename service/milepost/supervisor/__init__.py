"""Several replicas as processes on one port, under one supervisor that serves no call itself.

The supervisor starts the processes, replaces those that end, restarts them one by one, and serves
the one HTTP port for all of them. It holds no connection to the database.
"""

from milepost.supervisor.reports import Assignment
from milepost.supervisor.supervisor import supervise

__all__ = ["Assignment", "supervise"]
