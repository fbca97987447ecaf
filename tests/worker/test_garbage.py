"""What a fault leaves behind in a worker goes with the fault, not when the collector happens to come by."""

import asyncio
import gc
from pathlib import Path

import pytest
from redis.asyncio import Redis

from state_store import EmbeddedRedis
from state_store.wire import Connection
from worker.metrics import Metrics
from worker.service import run_worker
from worker.settings import load

CACHE = Path(__file__).parents[2] / ".predictor" / "cache"
PARTITIONS, CUTS = 4, 3


@pytest.fixture
def server(tmp_path):
    with EmbeddedRedis(tmp_path, port=0) as running:
        yield running


@pytest.fixture
def no_collector():
    """A worker tells the collector of its process what to do; here it never comes by itself."""
    thresholds = gc.get_threshold()
    gc.disable()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.enable()


def broken_connections() -> int:
    return sum(isinstance(each, Connection) and each.broken for each in gc.get_objects())


async def until(holds) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.05)


async def until_acquired(metrics: Metrics, leases: int) -> None:
    await until(lambda: metrics.lease_events.labels("acquired")._value.get() == leases)


async def cut_again_and_again(url: str) -> None:
    settings = load({"redis": {"url": url}, "worker": {"cache_dir": str(CACHE), "lease_ms": 1000}})
    metrics, stop = Metrics(), asyncio.Event()
    async with Redis.from_url(url) as admin, asyncio.TaskGroup() as tasks:
        work = run_worker(settings, metrics, stop=stop, on_progress=lambda _: None, partitions=PARTITIONS)
        tasks.create_task(work)
        try:
            await until_acquired(metrics, PARTITIONS)
            for cuts in range(1, CUTS + 1):
                await admin.client_kill_filter(_type="normal", skipme=True)
                await until_acquired(metrics, PARTITIONS * (1 + cuts))
            await until(lambda: broken_connections() <= PARTITIONS)  # each cut broke one or two of each partition
        finally:
            stop.set()


def test_broken_connections_do_not_pile_up(server, no_collector):
    asyncio.run(cut_again_and_again(server.url))
