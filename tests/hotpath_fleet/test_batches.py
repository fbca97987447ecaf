"""Knobs reach the micro-batches: each is formed under one configuration, and a window waits as long as it says."""

import asyncio
import json
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from predictor_core import encode_records
from scheduler.batching import BatchLimits
from scheduler.hotpath import LatencyHistogram
from scheduler.shedding import Shedder
from state_store import Memory, MemoryStateStore
from state_store.hotpath.commit import HotpathCommit
from state_store.hotpath.store import HotpathStore
from state_store.keys import partition_of
from worker.device import Answer, distinct
from worker.generations import Generation, Numbers
from worker.holding import Holding
from worker.hotpath.digest import decode
from worker.hotpath.document import Document
from worker.hotpath.knobs import REGISTRY, Knobs
from worker.hotpath.tuning import Tuning
from worker.metrics import Metrics
from worker.pipeline import Pipeline
from worker.rows import RowTable
from worker.settings import Settings

LAYOUT = b"twowords"
RESULT = np.dtype([("rejected", np.int32), ("reference_prediction", np.float64)])
CHANGES, WORKERS = 200, 16


class CountingDevice:
    """Answers at once, and remembers the size of each micro-batch."""

    def __init__(self):
        self.table = RowTable(np.zeros(2, np.uint32), 256)
        self.program = SimpleNamespace(layout_fingerprint=LAYOUT, fingerprint=LAYOUT)
        self.sizes = []

    async def run(self, work):
        self.sizes.append(len(work.values))
        touched, row_of = distinct(work)
        results = np.zeros(len(row_of), RESULT)
        records = [encode_records(self.table.rows[part], LAYOUT) for part in work.written]
        return Answer(results, np.zeros(len(row_of), "V8"), records, len(touched), rounds=1)

    async def records(self, slots):
        return encode_records(self.table.rows[slots], LAYOUT)


class Bench:
    """One pipeline over one partition or some, in memory."""

    def __init__(self, partitions=1, **limits):
        self.memory, self.partitions = Memory(lambda: int(time.time() * 1000)), partitions
        homes = {partition_of(asset := b"asset %d" % n, partitions): asset for n in range(50)}
        self.names = [homes[partition] for partition in range(partitions)]
        self.store = MemoryStateStore(self.memory)
        self.device = CountingDevice()
        generations = SimpleNamespace(current=Generation(0, Numbers(None, LAYOUT), {}))
        self.pipeline = Pipeline(self.store, self.device, BatchLimits(**limits), Shedder(), Metrics(), generations)
        self.sent = 0

    async def run(self, play):
        await self.store.open_fleet(self.partitions, LAYOUT, {})
        async with asyncio.TaskGroup() as tasks:
            self.pipeline.start(tasks)
            for partition in range(self.partitions):
                self.pipeline.hold(Holding(await self.store.acquire(partition, "w", 60_000)))
            await play()
            if self.partitions == 1:
                await self.applied(self.sent)
            await self.pipeline.drain()

    async def send(self, count):
        for _ in range(count):
            self.sent += 1
            self.memory.append(0, {b"a": b"asset-%d" % (self.sent % 7), b"y": b"1.5", b"t": b"%d" % self.sent})
        await self.memory.wake()

    async def send_to(self, partition, count):
        """Ticks of one asset that belongs there."""
        for _ in range(count):
            self.sent += 1
            self.memory.append(partition, {b"a": self.names[partition], b"y": b"1.5", b"t": b"%d" % self.sent})
        await self.memory.wake()

    async def applied(self, count, partition=0):
        async with asyncio.timeout(20):
            while (await self.store.probe(partition)).applied < count:
                await asyncio.sleep(0.005)


def test_a_partition_with_one_tick_has_its_turn_though_others_are_never_worked_off():
    bench = Bench(partitions=3, partitions_max=2, ticks_max=4, read_max=16, read_below=8)

    async def play():
        for partition, ticks in ((2, 1), (0, 2000), (1, 2000)):
            await bench.send_to(partition, ticks)
        await bench.applied(1, partition=2)
        await bench.send_to(2, 1)
        await bench.applied(2, partition=2)
        assert (await bench.store.probe(0)).backlog > 500

    asyncio.run(bench.run(play))


def test_without_a_window_a_tick_is_taken_at_once_and_with_one_it_waits_for_others():
    bench = Bench()

    async def play():
        await bench.send(1)
        await bench.applied(1)
        bench.pipeline.knobs = Knobs(bench.pipeline.knobs.limits, window_s=1.0)
        began_s = time.monotonic()
        for _ in range(5):
            await bench.send(1)
            await asyncio.sleep(0.01)
        await bench.applied(6)
        assert time.monotonic() - began_s >= 1.0

    asyncio.run(bench.run(play))
    assert bench.device.sizes == [1, 5]


def test_a_full_micro_batch_does_not_wait():
    bench = Bench()

    async def play():
        bench.pipeline.knobs = Knobs(BatchLimits(ticks_max=4), window_s=30.0)
        await bench.send(8)
        await bench.applied(8)

    asyncio.run(bench.run(play))
    assert bench.device.sizes == [4, 4]


def test_a_smaller_cap_takes_effect_without_a_restart():
    bench = Bench()

    async def play():
        await bench.send(64)
        await bench.applied(64)
        bench.pipeline.knobs = Knobs(BatchLimits(ticks_max=8, buffered_max=16, read_max=16))
        await bench.send(64)

    asyncio.run(bench.run(play))
    assert sum(bench.device.sizes) == 128 and max(bench.device.sizes[-8:]) <= 8


class FakePipeline:
    """Forms micro-batches without a pause, as a pipeline does: the knobs are read once for each."""

    def __init__(self):
        self.device = SimpleNamespace(table=RowTable(np.zeros(1, np.uint32), 64))
        self.store, self.generations = None, SimpleNamespace(without_canary=False)
        self.knobs = Knobs(BatchLimits())
        self.measures = None
        self.formed = 0
        self.torn = 0

    async def work(self, stop):
        results = np.zeros(4, RESULT)
        work = SimpleNamespace(
            slots=np.arange(4), values=np.ones(4), arrivals_ns=np.full(4, time.time_ns() - 10**6, np.int64)
        )
        while not stop.is_set():
            knobs = self.knobs
            await asyncio.sleep(0.004)
            # What belongs together in a document must be together in a micro-batch.
            self.torn += knobs.generation > 0 and knobs.limits.ticks_max != 1000 + knobs.generation
            generation = SimpleNamespace(canary=None)
            batch = SimpleNamespace(knobs=knobs, work=work, parts=(), generation=generation)
            self.measures.count(4, 0)
            self.measures.committed(batch, SimpleNamespace(results=results, seconds=0.001))
            self.formed += 1


@pytest.fixture
def settings(server, namespace, tmp_path):
    def make(name):
        given = {"poll_s": 0.02, "digest_s": 0.05, "settle_s": 0.0, "directory": tmp_path / name}
        redis = {"url": server.url, "namespace": namespace}
        return Settings(redis=redis, worker={"name": name}, hotpath=given)

    return make


async def test_every_micro_batch_and_every_digest_belongs_to_one_configuration(server, namespace, settings):
    """Sixteen workers under load, two hundred configurations."""
    store, stop = HotpathStore(server.url, namespace), asyncio.Event()
    pipelines = [FakePipeline() for _ in range(WORKERS)]
    tunings = [
        Tuning(settings(f"w{number}"), pipeline, Metrics().hotpath, leads=False)
        for number, pipeline in enumerate(pipelines)
    ]
    leadership = await store.lead("test", "nonce", 60_000)
    await store.commit(leadership, HotpathCommit("safe", "begin", 0, 0, b"", b"{}", "run"))
    running = [asyncio.create_task(tuning.run(stop)) for tuning in tunings]
    running += [asyncio.create_task(pipeline.work(stop)) for pipeline in pipelines]
    for generation in range(1, CHANGES + 1):
        knobs = {"window_ms": generation / 4, "ticks_max": 1000 + generation, "read_ahead": 5000}
        ttl_ms, registry = 60_000, REGISTRY.hash64
        document = Document(namespace, generation, leadership.token, "plus", knobs, knobs, ttl_ms, 0, registry, 1)
        base, name = generation - 1, f"run:{generation}:plus"
        commit = HotpathCommit("plus", name, base, generation, document.encode(), b"{}", "run")
        assert (await store.commit(leadership, commit)).outcome.took_effect
        await asyncio.sleep(0.01)
    async with asyncio.timeout(20):
        while any(pipeline.knobs.generation < CHANGES for pipeline in pipelines):
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*running)
    assert min(pipeline.formed for pipeline in pipelines) > 100
    assert not any(pipeline.torn for pipeline in pipelines)
    digests = [decode(payload) for _, _, payload in (await store.look("0-0", "0-0")).digests]
    assert len({digest.generation for digest in digests}) > 10
    assert {digest.fence for digest in digests} == {0, leadership.token}
    assert all(isinstance(digest.latency, LatencyHistogram) for digest in digests)
    assert sum(digest.predictions for digest in digests) > 1000
    await store.close()


async def test_a_probe_that_a_failover_took_back_ends_though_somebody_leads(server, namespace, settings):
    store, stop, pipeline = HotpathStore(server.url, namespace), asyncio.Event(), FakePipeline()
    tuning = Tuning(settings("w"), pipeline, Metrics().hotpath, leads=False)
    leadership = await store.lead("test", "nonce", 60_000)
    knobs = {"window_ms": 5.0, "ticks_max": 1001, "read_ahead": 5000}
    old = Document(namespace, 1, leadership.token, "centre", knobs, knobs, 200, 0, REGISTRY.hash64, 1)
    lost = replace(old, generation=2, phase="plus", live=knobs | {"window_ms": 50.0})
    await store.commit(leadership, HotpathCommit("safe", "p", 0, 1, old.encode(), b"{}", "run"))
    tuning.follower.file = None  # it has been running for long
    assert tuning.follower.offer(lost.encode(), tuning.clock())
    running = asyncio.create_task(tuning.run(stop))
    async with asyncio.timeout(20):
        while pipeline.knobs.window_s != 0.005:
            await asyncio.sleep(0.01)
    assert tuning.follower.expired == 1 and tuning.follower.refused["order"] > 0
    stop.set()
    await running
    await store.close()


async def test_redis_away_a_worker_leaves_the_probe_and_its_ticks_go_on(server, namespace, settings, monkeypatch):
    store, stop, pipeline = HotpathStore(server.url, namespace), asyncio.Event(), FakePipeline()
    tuning = Tuning(settings("w"), pipeline, Metrics().hotpath, leads=False)
    leadership = await store.lead("test", "nonce", 60_000)
    live, centre = ({"window_ms": window_ms, "ticks_max": 1001, "read_ahead": 5000} for window_ms in (50.0, 5.0))
    document = Document(namespace, 1, leadership.token, "plus", centre, live, 200, 0, REGISTRY.hash64, 1)
    await store.commit(leadership, HotpathCommit("safe", "begin", 0, 0, b"", b"{}", "run"))
    await store.commit(leadership, HotpathCommit("plus", "p", 0, 1, document.encode(), b"{}", "run"))
    running = [asyncio.create_task(tuning.run(stop)), asyncio.create_task(pipeline.work(stop))]
    async with asyncio.timeout(20):
        while pipeline.knobs.window_s != 0.05:
            await asyncio.sleep(0.01)
        acks = (await store.look("0-0", "0-0")).acks
        assert json.loads(acks["w"][1])["generation"] in (0, 1)

        async def unreachable(*words):
            from state_store import StoreUnavailable

            raise StoreUnavailable("cut off")

        monkeypatch.setattr(tuning.store, "follow", unreachable)
        while pipeline.knobs.window_s != 0.005:
            await asyncio.sleep(0.01)
        formed = pipeline.formed
        while pipeline.formed < formed + 10:
            await asyncio.sleep(0.01)
    assert pipeline.knobs.pair == (0, 0) and tuning.follower.expired == 1
    stop.set()
    await asyncio.gather(*running)
    await store.close()
