"""One worker process: the service with signals, health endpoints and logs around it."""

import asyncio
import logging
import os
import signal

import uvloop

from worker.devicewatch import watch_devices
from worker.health import health_server
from worker.logs import start_logging
from worker.metrics import Metrics
from worker.service import join, run_worker
from worker.settings import Settings, masked
from worker.wiring import make_program, make_store

log = logging.getLogger(__name__)


def serve(settings: Settings, partitions: int | None = None) -> None:
    """Works until SIGTERM or SIGINT, then drains; a second signal ends the process at once."""
    # XLA looks at its first use. With more threads it may run an execution in the thread that asks; with one never, so
    # that what the graph costs can be told from what the worker does. It takes no longer: an execution is one function.
    os.environ.setdefault("PJRT_NPROC", "1")
    start_logging(settings.log, settings.worker.name)
    settings.config()  # a wrong number is reported before anything is opened
    uvloop.run(_serve(settings, partitions))


async def make_fleet(settings: Settings, partitions: int | None) -> None:
    """Writes what every worker of the fleet must agree on, or confirms it; None: the fleet must be there already."""
    store = make_store(settings)
    try:
        await join(store, make_program(settings), partitions)
    finally:
        await store.close()


async def _serve(settings: Settings, partitions: int | None) -> None:
    metrics, stop = Metrics(), asyncio.Event()
    _stop_on_signals(stop, metrics)

    def on_progress(phase: str) -> None:
        metrics.vitals.phase, metrics.vitals.ready = phase, phase == "ready"
        log.info("phase", extra={"phase": phase})

    async with health_server(settings, metrics) as port:
        log.info(
            "started",
            extra={
                "pid": os.getpid(),
                "http": f"http://{settings.worker.http_host}:{port}",
                "redis": masked(settings.redis.url),
                "namespace": settings.redis.namespace,
            },
        )
        watch = watch_devices(metrics.registry)
        await run_worker(settings, metrics, partitions=partitions, stop=stop, on_progress=on_progress)
        watch.stop()
    log.info("stopped")


def _stop_on_signals(stop: asyncio.Event, metrics: Metrics) -> None:
    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        log.info("stopping", extra={"signal": signal.Signals(number).name})
        if not metrics.vitals.ready:
            os._exit(0)  # nothing is held yet, and a compilation cannot be interrupted
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
