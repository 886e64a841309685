"""All stores of a process, one for each port of the domain, over the same batchers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.storage.api_keys import SqlKeyStore
from milepost.storage.deliveries import SqlDeliveryStore
from milepost.storage.history import SqlHistoryStore
from milepost.storage.operations import SqlOperationStore
from milepost.storage.signing_secrets import SqlSecretStore
from milepost.storage.sweeps import SqlSweepStore
from milepost.storage.work import SqlWorkStore
from milepost.storage.workload import SqlWorkloadStore

if TYPE_CHECKING:
    from milepost.storage.batchers import Batchers


class Stores:
    """One store for each port. Close the batchers, not the stores."""

    def __init__(self, batchers: Batchers) -> None:
        """Compile the statements of every store once."""
        self.operations = SqlOperationStore(batchers)
        self.work = SqlWorkStore(batchers)
        self.sweeps = SqlSweepStore(batchers)
        self.workload = SqlWorkloadStore(batchers)
        self.history = SqlHistoryStore(batchers)
        self.keys = SqlKeyStore(batchers)
        self.deliveries = SqlDeliveryStore(batchers)
        self.secrets = SqlSecretStore(batchers)
