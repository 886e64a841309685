"""The services of the API: their servicers, built once for every protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.longrunning import operations_proto_pb2

from milepost.api.admin import AdminService
from milepost.api.google_operations import GoogleOperations
from milepost.api.operations import OperationService
from milepost.api.webhooks import WebhookService
from milepost.api.workers import WorkerService
from milepost.gen.milepost.v1 import (
    admin_service_pb2,
    operation_service_pb2,
    webhook_service_pb2,
    worker_service_pb2,
)

if TYPE_CHECKING:
    from types import ModuleType

    from google.protobuf.descriptor import ServiceDescriptor

    from milepost.domain.limits import Limits
    from milepost.tracking.claimer import Claimer
    from milepost.tracking.history import History
    from milepost.tracking.keys import Keys
    from milepost.tracking.progress_streams import ProgressStreams
    from milepost.tracking.sweeper import Sweeper
    from milepost.tracking.tracker import Tracker
    from milepost.tracking.watcher import Watcher
    from milepost.tracking.webhooks import Webhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """The use cases that the services call."""

    tracker: Tracker
    history: History
    claimer: Claimer
    sweeper: Sweeper
    streams: ProgressStreams
    watcher: Watcher
    webhooks: Webhooks
    keys: Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service: its description in the protos, and its servicer."""

    descriptor: ServiceDescriptor
    servicer: object


def services_of(use_cases: UseCases, limits: Limits) -> tuple[Service, ...]:
    """Return every service, over `use_cases`; requests are checked against `limits`."""
    tracker, watcher = use_cases.tracker, use_cases.watcher
    return (
        _service(
            operation_service_pb2, OperationService(tracker, use_cases.history, watcher, limits)
        ),
        _service(
            worker_service_pb2, WorkerService(tracker, use_cases.claimer, use_cases.streams, limits)
        ),
        _service(webhook_service_pb2, WebhookService(use_cases.webhooks, limits)),
        _service(admin_service_pb2, AdminService(use_cases.keys, use_cases.sweeper, limits)),
        _service(operations_proto_pb2, GoogleOperations(tracker, watcher, limits)),
    )


def _service(file: ModuleType, servicer: object) -> Service:
    """Return the only service of a file of the protos."""
    (descriptor,) = file.DESCRIPTOR.services_by_name.values()
    return Service(descriptor=descriptor, servicer=servicer)
