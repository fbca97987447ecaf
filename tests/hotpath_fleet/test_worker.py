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

import pytest

from predictor_core import PredictorConfig, Program, payload_fields
from state_store import RedisStateStore, TickProducer
from state_store.hotpath.store import HotpathStore
from worker.hotpath.operator import give
from worker.hotpath.orders import Order
from worker.settings import load
from worker.wiring import depths

CACHE = Path(__file__).parents[2] / ".predictor" / "cache"
FAST = {"poll_s": 0.05, "digest_s": 0.2, "settle_s": 0.1, "digests_per_side": 2, "lease_ms": 600, "samples_min": 1}


@pytest.fixture
def fleet(server, namespace, tmp_path):
    program = Program(PredictorConfig(), cache_dir=CACHE)
    program.compile(depths(program.config))
    running = []

    async def make():
        store = RedisStateStore(server.url, namespace)
        await store.open_fleet(2, program.layout_fingerprint, payload_fields(program.config))
        await store.close()

    asyncio.run(make())
    hotpath = FAST | {"directory": tmp_path / "hotpath"}
    env = {f"USP_HOTPATH__{name.upper()}": str(value) for name, value in hotpath.items()}
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


async def metrics_of(store):
    return (await store.show()).acks
