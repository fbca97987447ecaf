"""A real worker process: it observes, follows a pin without a restart, is succeeded when killed, leaves in order."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from predictor_core import payload_fields
from state_store import RedisStateStore, TickProducer
from state_store.hotpath.store import HotpathStore
from state_store.logs import Logs, Looking
from worker.hotpath.operator import give
from worker.hotpath.order import Order
from worker.hotpath.view import canary
from worker.recall import made_by
from worker.settings import load
from worker.verify import verify_fleet

CACHE = Path(__file__).parents[2] / ".predictor" / "cache"
FAST = {"poll_s": 0.05, "digest_s": 0.2, "settle_s": 0.1, "digests_per_side": 2, "lease_ms": 600, "samples_min": 1}
FAST |= {"canary_settle_s": 0.0, "canary_round_s": 0.3, "canary_scored_min": 5, "canary_harm": 10.0}
FAST |= {"p99_limit_ms": 1e9, "lag_limit_s": 1e6}
FAST |= {"utilisation_max": 1.0}  # whatever else this machine is doing


@pytest.fixture
def fleet(server, namespace, tmp_path, program):
    running = []

    async def make():
        store = RedisStateStore(server.url, namespace)
        await store.open_fleet(2, program.layout_fingerprint, payload_fields(program.config))
        await store.close()

    asyncio.run(make())
    hotpath = FAST | {"directory": tmp_path / "hotpath"}
    env = {f"USP_HOTPATH__{name.upper()}": str(value) for name, value in hotpath.items()}
    env |= {"USP_WORKER__LEASE_MS": "1000"}
    env |= {"USP_REDIS__URL": server.url, "USP_REDIS__NAMESPACE": namespace, "USP_WORKER__CACHE_DIR": str(CACHE)}

    def start(name):
        command = [sys.executable, "-m", "worker", "worker", "--name", name, "--parent", str(os.getpid())]
        with (tmp_path / f"{name}.log").open("wb") as log:
            running.append(subprocess.Popen(command, env=os.environ | env, stderr=log))
        return running[-1]

    settings = load({"redis": {"url": server.url, "namespace": namespace}, "hotpath": hotpath})
    yield settings, start, tmp_path
    for worker in running:
        worker.kill()
        worker.wait()


async def until(ask, holds):
    async with asyncio.timeout(120):
        while not holds(answer := await ask()):
            await asyncio.sleep(0.02)
    return answer


def address(log):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if '"started"' in line:
                return json.loads(line)["http"]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


async def test_a_worker_follows_leads_is_succeeded_and_leaves(fleet, namespace):
    settings, start, folder = fleet
    store = HotpathStore(settings.redis.url, namespace)
    first = start("first")
    await until(store.led, lambda led: led.owner == "first")
    async with TickProducer(settings.redis.url, namespace) as producer:

        async def report_of_a_fed_fleet():  # a window without ticks, and the first one, count for nothing
            for number in range(10):
                await producer.send(f"A{number % 5}", number / 7, time.time_ns())
            return json.loads((await store.show()).report)

        await until(report_of_a_fed_fleet, lambda told: told.get("dry_run", {}).get("windows"))
    order = Order("one", "pin", "ana", "a test", None, {"knob": "window_ms", "value": 30.0, "jump": True})
    answer = await give(settings, order, 30.0)
    assert answer["ok"] and answer["generation"] == 1
    page = f"{address(folder / 'first.log')}/metrics"

    async def metrics():
        return await asyncio.to_thread(lambda: urllib.request.urlopen(page, timeout=5).read().decode())

    told = await until(metrics, lambda text: "hotpath_generation 1.0" in text)
    assert "hotpath_lease_held 1.0" in told and 'hotpath_knob{kind="live",knob="window_ms"} 30.0' in told

    second = start("second")
    await until(lambda: metrics_of(store), lambda acks: "second" in acks)
    first.kill()
    await until(store.led, lambda led: led.owner == "second")
    assert (await store.load()).generation == 1
    second.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(second.wait, 60) == 0
    assert not (await store.led()).left_ms
    assert "second" not in (await store.show()).acks
    await store.close()


async def feed(producer, numbers, stop):
    number = 0
    while not stop.is_set():
        for _ in range(40):
            number += 1
            await producer.send(f"A{number % 10}", float(numbers.standard_normal()), time.time_ns())
        await asyncio.sleep(0.01)


async def test_a_canary_has_its_rounds_through_a_kill_and_every_prediction_is_made_again(fleet, namespace):
    settings, start, _ = fleet
    tuner, store = HotpathStore(settings.redis.url, namespace), RedisStateStore(settings.redis.url, namespace)
    stop = asyncio.Event()
    running = {name: start(name) for name in ("first", "second")}
    async with TickProducer(settings.redis.url, namespace) as producer, asyncio.TaskGroup() as tasks:
        await until(lambda: metrics_of(tuner), lambda acks: len(acks) == 2)
        tasks.create_task(feed(producer, np.random.default_rng(1), stop))
        asked = {"candidate": {"sinkhorn_epsilon_0": 0.5}, "knobs": [], "share": 2, "rotations": 1}
        answer = await give(settings, Order("go", "canary-start", "ana", "a test", None, asked), 30.0)
        assert "one of 2 groups of partitions, in 20 rounds" in answer["told"]

        async def trying():
            return canary(await tuner.show())

        await until(trying, lambda facts: facts.get("round", 0) >= 3)
        running[(await tuner.led()).owner].kill()
        told = await until(trying, lambda facts: facts.get("round", 0) >= 5)
        assert told["trying"] and told["candidate"] == asked["candidate"]
        await give(settings, Order("stop", "canary-abort", "ana", "a test", None, {}), 30.0)
        generation = await until(store.read_config, lambda found: "canary" not in found.values)
        assert generation.values == {}
        stop.set()
    await until(lambda: backlog_of(store), lambda backlog: not backlog)
    verdict = await verify_fleet(settings, store)
    assert verdict.agrees and verdict.predictions > 500, verdict
    async with Looking(settings.redis.url) as looking:
        for partition in (0, 1):  # each was the canary in turn
            pages = Logs(looking, namespace).pages(partition, "predictions")
            marks = {made_by(fields[b"p"]) for page in [page async for page in pages] for _, fields in page}
            assert len(marks) == 2
    await store.close()
    await tuner.close()


async def backlog_of(store):
    probes = [await store.probe(partition) for partition in (0, 1)]
    return sum(probe.backlog for probe in probes) or any(probe.state_cursor != probe.cursor for probe in probes)


async def metrics_of(store):
    return (await store.show()).acks
