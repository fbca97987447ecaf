"""A clean end is told in phases, with metrics, by a worker of a fleet as by a service of one asset."""

import asyncio
import logging
from functools import partial
from itertools import count
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from state_store import Lease, MemoryStateStore
from worker.metrics import Metrics
from worker.service import Worker
from worker.settings import WorkerSettings
from worker.shutdown import Shutdown, ShutdownMetrics


def phases(caplog):
    return {record.shutdown_phase: record for record in caplog.records if hasattr(record, "shutdown_phase")}


def test_phases_are_logged_and_the_end_is_counted(caplog):
    registry, seconds = CollectorRegistry(), count()
    with caplog.at_level(logging.INFO):
        shutdown = Shutdown(ShutdownMetrics(registry), lambda: float(next(seconds)))
        shutdown.begin(7, reason="SIGTERM")
        shutdown.phase("drain", dropped=0)
        shutdown.end(0)
    told = phases(caplog)
    assert list(told) == ["block", "drain", "closed"]
    assert (told["block"].residual_observations, told["block"].reason, told["drain"].dropped) == (7, "SIGTERM", 0)
    assert (told["closed"].seconds, told["closed"].exit_code) == (1.0, 0)
    sample = registry.get_sample_value
    assert sample("predictor_graceful_shutdowns_total") == 1
    assert sample("predictor_shutdown_duration_seconds_sum") == 1.0
    assert sample("predictor_shutdown_residual_observations_sum") == 7


def test_the_buckets_are_those_that_dashboards_know():
    registry = CollectorRegistry()
    ShutdownMetrics(registry)
    buckets = {
        family.name: [float(sample.labels["le"]) for sample in family.samples if "le" in sample.labels][:-1]
        for family in registry.collect()
    }
    assert buckets["predictor_shutdown_duration_seconds"] == [0.5, 1, 2, 5, 10, 20, 30]
    assert buckets["predictor_shutdown_residual_observations"] == [0, 1, 5, 10, 50, 100, 500, 1000]


@pytest.fixture
def pipeline():
    async def drain():
        return None

    holding = SimpleNamespace(buffered=3, lease=None)
    return SimpleNamespace(holdings={0: holding}, lost=[], clock=lambda: 0.0, drain=drain)


def test_a_worker_of_a_fleet_tells_its_end_the_same_way(pipeline, caplog):
    class Store(MemoryStateStore):
        async def release(self, lease):
            return None

    metrics = Metrics()
    worker = Worker(Store(), pipeline, SimpleNamespace(worker=WorkerSettings()), metrics, 4)
    with caplog.at_level(logging.INFO):
        asyncio.run(worker.drain())
    told = phases(caplog)
    assert list(told) == ["block", "drain", "closed"] and told["block"].residual_observations == 3
    page = metrics.page().decode()
    assert "predictor_graceful_shutdowns_total 1.0" in page
    assert 'predictor_shutdown_residual_observations_bucket{le="5.0"} 1.0' in page


async def test_a_lease_that_was_just_being_acquired_is_given_back_too():
    answered = asyncio.Event()

    class Slow(MemoryStateStore):
        async def acquire(self, *words):
            await answered.wait()
            return await super().acquire(*words)

    async def drain():
        return None

    store, holdings = Slow(), {}
    await store.open_fleet(4, b"layout", {})
    pipeline = SimpleNamespace(
        holdings=holdings,
        lost=[],
        clock=lambda: 0.0,
        drain=drain,
        hold=lambda holding: holdings.setdefault(holding.partition, holding),
    )
    worker = Worker(store, pipeline, SimpleNamespace(worker=WorkerSettings()), Metrics(), 4)
    async with asyncio.TaskGroup() as tasks:
        worker.beside.start(tasks)
        await worker.beside.each({0: partial(worker._acquire, 0)}, 0.01)
        leaving = tasks.create_task(worker.drain())
        await asyncio.sleep(0)
        answered.set()
        await leaving
    assert isinstance(await store.acquire(0, "another", 1000), Lease)
