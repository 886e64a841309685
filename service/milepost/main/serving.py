"""Serving: builds everything, runs it until a signal, and takes it down in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from datetime import timedelta
from typing import TYPE_CHECKING

from milepost import __version__, telemetry
from milepost.api.services import UseCases, services_of
from milepost.config import redacted
from milepost.main.access import access_of, tls_of
from milepost.main.batch_scheduling import use_batch_scheduling
from milepost.main.embedded import only_process, prepare_embedded
from milepost.main.garbage_collection import freeze_startup_objects
from milepost.main.http_ports import HttpPorts
from milepost.main.notifications import subscribed_to_notifications
from milepost.main.open_files import max_connections, raise_open_files_limit
from milepost.main.periodic_tasks import SERVING_INTERVAL_S, background, run_periodically
from milepost.main.readiness import DRAINING, Readiness, database_is_usable
from milepost.main.supervised import reporting
from milepost.main.webhook_delivery import delivering_webhooks
from milepost.rpc.server import RpcServer, Wire
from milepost.storage.api_keys import service_key
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.stores import Stores
from milepost.telemetry import otlp
from milepost.telemetry.metrics_export import exporting_metrics
from milepost.tracking.claimer import Claimer, PendingWork
from milepost.tracking.committer import Committer
from milepost.tracking.history import History
from milepost.tracking.keys import Keys
from milepost.tracking.page_tokens import PageTokens
from milepost.tracking.progress_streams import ProgressStreams
from milepost.tracking.subscriptions import Subscriptions
from milepost.tracking.sweeper import Sweeper
from milepost.tracking.tracker import Tracker
from milepost.tracking.waiting_work import WaitingWork
from milepost.tracking.watcher import Watcher
from milepost.tracking.webhooks import Webhooks
from milepost.tracking.workload_meter import WorkloadMeter

if TYPE_CHECKING:
    from milepost.config import Settings
    from milepost.domain.ports import LeaseRegister
    from milepost.main.webhook_delivery import WebhookDelivery
    from milepost.supervisor import Assignment


async def serve(settings: Settings, assignment: Assignment | None = None) -> None:
    """Run the service until SIGTERM or SIGINT, then drain: no accepted call is lost.

    With an `assignment` it is one of several processes of a supervisor.
    """
    telemetry.log_errors_of_loop()
    if settings.batch_scheduling:
        use_batch_scheduling()
    open_files = raise_open_files_limit()
    stop = _stop_signal()
    readiness = Readiness()
    url = settings.database_url.get_secret_value()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(reporting(assignment, readiness, stop))
        tracing = telemetry.configure_traces(
            otlp.collector("traces", settings.otlp_endpoint),
            telemetry.sampler_of(
                settings.trace_sample_ratio,
                is_chosen="trace_sample_ratio" in settings.model_fields_set,
            ),
            version=__version__,
        )
        stack.callback(tracing.stop)
        await stack.enter_async_context(
            exporting_metrics(
                settings.otlp_endpoint,
                version=__version__,
                process=None if assignment is None else assignment.number,
            )
        )
        ports = await stack.enter_async_context(
            HttpPorts(settings, readiness, has_supervisor=assignment is not None)
        )
        if settings.embedded:
            stack.enter_context(only_process(url))
            await asyncio.to_thread(prepare_embedded, url)
        engine = open_engine(url)
        if not await database_is_usable(engine, readiness, stop):
            return
        page_tokens = PageTokens(await asyncio.to_thread(service_key, engine, "page_tokens"))
        batchers = Batchers(engine, batching=settings.batching)
        stack.push_async_callback(batchers.close)
        stores = Stores(batchers)
        sending = await stack.enter_async_context(delivering_webhooks(settings, stores, tracing))
        keys = Keys(
            stores.keys,
            limits=settings.limits,
            page_tokens=page_tokens,
            reserved_subjects=settings.reserved_subjects,
        )
        access = await stack.enter_async_context(access_of(settings, stores.keys, keys.note_use))
        subscriptions, work = Subscriptions(), PendingWork(stores.work)
        await stack.enter_async_context(
            subscribed_to_notifications(subscriptions, stores.history, engine)
        )
        use_cases = _use_cases(
            settings,
            stores,
            sending,
            page_tokens=page_tokens,
            subscriptions=subscriptions,
            work=work,
            keys=keys,
            leases=access.rate_limits.leases,
            tracing=tracing,
        )
        services = services_of(use_cases, settings.limits)
        server = RpcServer(
            services, use_cases, access, _wire(settings, open_files, assignment), tracing=tracing
        )
        await server.start()
        await ports.serve(
            services, access, tracing, max_connections=max_connections(open_files) // 2
        )
        freeze_startup_objects()
        watch = asyncio.create_task(readiness.watch(batchers, server))
        # It ends when the replica drains, unlike the other tasks: then it takes no more renewals.
        note = asyncio.create_task(
            run_periodically(
                "note serving", use_cases.sweeper.note_serving, SERVING_INTERVAL_S, at_once=True
            )
        )
        await stack.enter_async_context(
            background(
                settings,
                work=work,
                waiting=WaitingWork(stores.work, work),
                sweeper=use_cases.sweeper,
                keys=keys,
                meter=WorkloadMeter(stores.workload),
            )
        )
        telemetry.log.info(
            "serving",
            listen=settings.listen,
            http_listen=settings.http_listen,
            tls=settings.tls_cert_file is not None,
            open_files=open_files,
            database=redacted("database_url", url),
        )
        await stop.wait()
        telemetry.log.info("draining")
        watch.cancel()
        note.cancel()
        readiness.problem = DRAINING
        await server.report(ready=False)
        await asyncio.sleep(settings.not_ready_seconds)
        work.close()
        await server.drain(settings.drain_seconds)
    telemetry.log.info("stopped")
    _end_process()


def _end_process() -> None:
    """End the process at once, which closes its connections.

    An orderly end of gRPC would answer CANCELLED to calls that still arrive. Everything else has
    been closed before.
    """
    telemetry.finish_log()
    os._exit(0)


def _use_cases(
    settings: Settings,
    stores: Stores,
    sending: WebhookDelivery,
    *,
    page_tokens: PageTokens,
    subscriptions: Subscriptions,
    work: PendingWork,
    keys: Keys,
    leases: LeaseRegister,
    tracing: telemetry.Tracing,
) -> UseCases:
    """Return what the services serve."""
    operations, limits = stores.operations, settings.limits
    committer = Committer(operations, subscriptions, work, leases)
    streams = ProgressStreams(committer, operations, subscriptions=subscriptions, limits=limits)
    tracker = Tracker(
        operations,
        committer,
        limits=limits,
        page_tokens=page_tokens,
        work=work,
        pending_progress=streams.pending_progress,
        allowances=settings.allowances,
        callbacks=sending.callbacks,
    )
    return UseCases(
        tracker=tracker,
        history=History(operations, stores.history, limits=limits, page_tokens=page_tokens),
        claimer=Claimer(stores.work, committer, limits=limits, work=work),
        sweeper=Sweeper(
            stores.sweeps,
            subscriptions=subscriptions,
            work=work,
            event_retention=timedelta(seconds=settings.events_kept_seconds),
            tracing=tracing,
        ),
        streams=streams,
        watcher=Watcher(
            stores.operations,
            stores.history,
            subscriptions,
            max_wait=settings.wait_seconds_max,
            keep_alive=settings.keep_alive_seconds,
        ),
        webhooks=Webhooks(
            stores.deliveries,
            sending.secrets,
            limits=limits,
            page_tokens=page_tokens,
            callbacks=sending.callbacks,
            prober=sending.attempts,
        ),
        keys=keys,
    )


def _wire(settings: Settings, open_files: int, assignment: Assignment | None) -> Wire:
    return Wire(
        address=settings.listen,
        connections=max_connections(open_files),
        request_bytes=settings.request_bytes_max,
        reflection=settings.reflection,
        batching=settings.batching,
        tls=tls_of(settings),
        shares_port=assignment is not None,
    )


def _stop_signal() -> asyncio.Event:
    """Return an event that the first SIGTERM or SIGINT sets; the second ends the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop
