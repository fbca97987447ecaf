"""What the tuner costs: a decision, reading the knobs, a measured micro-batch, and a whole worker with and without it.

    python -m loadtests.hotpath_cost [--json] [--pairs N] [--ticks N]

One worker in this process takes burst after burst of the same number of ticks, with the tuner and without in turns,
the order within a pair drawn at random. What is compared is the processor time of the process, which the machine's
other work disturbs far less than the clock on the wall; and since both sides of a pair are the same process moments
apart, what disturbs one disturbs the other. As many pairs are run in which nothing differs: they say how small a
difference this machine could have shown.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from loadtests.producer import Wire
from loadtests.results import about
from loadtests.statistics import median, percentiles, rounded
from loadtests.ticks import TickBytes
from scheduler.batching import BatchLimits
from scheduler.hotpath import AdaptiveEngine, NoChange, TelemetryDigest, Violation
from state_store import EmbeddedRedis
from worker.hotpath.engine import engine_config, first_gains
from worker.hotpath.knobs import REGISTRY, Knobs
from worker.hotpath.measures import Measures
from worker.hotpath.tuning import Tuning
from worker.metrics import Metrics
from worker.rows import RowTable
from worker.service import Worker, join
from worker.settings import HotpathSettings, Settings, load
from worker.wiring import make_device, make_pipeline, make_store

PARTITIONS, ASSETS = 8, 1024
LOOK_S = 0.004
WARM_BURSTS = 6
RESAMPLES = 10_000
PATIENCE_S = 120.0
DECISIONS = 20_000
READS = 1_000_000
SIZES = (1, 64, 512, 4096)
RESULT = np.dtype([("rejected", np.int32), ("reference_prediction", np.float64)])


def decisions(count: int = DECISIONS) -> dict[str, float]:
    """Milliseconds of observe and, where something was proposed, apply; with the defaults of a fleet."""
    settings = HotpathSettings()
    engine = AdaptiveEngine(engine_config(settings, first_gains(settings)), registry=REGISTRY)
    engine.set_baseline(0)
    noise, spent = random.Random(1), np.empty(count)
    for number in range(count):
        now_us = (number + 1) * 10_000_000
        generation = engine.snapshot().generation
        digest = TelemetryDigest(10_000_000, noise.gauss(0.5, 0.01), 5000, now_us, generation, since_apply_us=10**9)
        began = time.perf_counter()
        proposal = engine.observe(digest, now_us)
        if not isinstance(proposal, NoChange):
            try:
                engine.apply(proposal, now_us)
            except Violation:
                pass
        spent[number] = time.perf_counter() - began
        engine.drain_audit()
    return percentiles(1e3 * spent)


def reading() -> float:
    """Nanoseconds of reading the knobs in force, less those of an empty loop."""
    pipeline = SimpleNamespace(knobs=Knobs(BatchLimits()))
    empty, read = (
        min(timeit.repeat(statement, globals={"pipeline": pipeline}, number=READS, repeat=5))
        for statement in ("pass", "pipeline.knobs")
    )
    return 1e9 * (read - empty) / READS


def measuring(ticks: int, seconds: float = 0.5) -> float:
    """Microseconds that a committed micro-batch of so many ticks costs."""
    table, knobs = RowTable(np.zeros(1, np.uint32), 4096), Knobs(BatchLimits())
    holding = SimpleNamespace(slots=np.full(4096, -1, np.int32))
    for code in range(4096):
        table.place(holding, code, np.zeros(1, np.uint32))  # type: ignore[arg-type]
    measures = Measures(table, knobs, 1e9, 0.0)
    measures.offset_ns = time.time_ns() - int(time.monotonic() * 1e9)
    rng = np.random.default_rng(0)
    work = SimpleNamespace(
        slots=rng.integers(0, 2048, ticks), values=rng.random(ticks), arrivals_ns=np.full(ticks, time.time_ns())
    )
    batch = SimpleNamespace(knobs=knobs, work=work, parts=(), generation=SimpleNamespace(canary=None))
    answer = SimpleNamespace(results=np.zeros(ticks, RESULT), seconds=0.0)
    count, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        measures.committed(batch, answer)  # type: ignore[arg-type]
        count += 1
    return 1e6 * (time.process_time() - began) / count


class Bench:
    """One worker of one fleet in this process, whose tuner can be left out from one burst to the next."""

    def __init__(self, settings: Settings, socket: str, ticks: int) -> None:
        self._settings, self._ticks = settings, ticks
        self._store, self._device, self._metrics = make_store(settings), make_device(settings), Metrics()
        words = json.dumps({"socket": socket, "partitions": PARTITIONS, "assets": ASSETS, "ticks": ticks})
        self._producer = subprocess.Popen(
            [sys.executable, "-m", "loadtests.hotpath_cost", "--feed", words], stdin=-1, stdout=-1, text=True
        )

    async def run(self, count: int, say: Callable[[str], None]) -> dict[str, Any]:
        """The ratios of all pairs, of those that differ and of those that do not."""
        stop = asyncio.Event()
        await join(self._store, self._device.program, PARTITIONS)
        await self._device.compile()
        self.pipeline = make_pipeline(self._settings, self._store, self._device, self._metrics)
        self.tuning = Tuning(self._settings, self.pipeline, self._metrics.hotpath)
        worker = Worker(self._store, self.pipeline, self._settings, self._metrics, PARTITIONS)
        serving = asyncio.create_task(worker.run(stop))
        chance, found = random.Random(1), {"with_tuner": [], "nothing_differs": []}
        for _ in range(WARM_BURSTS):
            await self._burst(True)
        for number in range(count):
            for name, sides in (("with_tuner", (True, False)), ("nothing_differs", (False, False))):
                found[name].append(await self._pair(sides, chance.random() < 0.5))
            if number % 10 == 9:
                say(f"{number + 1:4} pairs: {median(found['with_tuner']):.4f}, {median(found['nothing_differs']):.4f}")
        stop.set()
        await serving
        await self.tuning.store.close()
        await self._store.close()
        return {name: interval_of(ratios) for name, ratios in found.items()}

    def close(self) -> None:
        self._device.close()
        self._producer.kill()
        self._producer.communicate()

    async def _pair(self, sides: tuple[bool, bool], reverse: bool) -> float:
        """Processor time of the first side over the second, in whichever order."""
        spent: list[float] = [0.0, 0.0]
        for place in (1, 0) if reverse else (0, 1):
            spent[place] = await self._burst(sides[place])
        return spent[0] / spent[1]

    async def _burst(self, tuned: bool) -> float:
        """Processor seconds of this process from the first tick of a burst to its last commit."""
        self.pipeline.measures = self.tuning.measures if tuned else None
        beating = asyncio.create_task(self._beat()) if tuned else None
        goal = self._taken() + self._ticks
        began = time.process_time()
        assert self._producer.stdin is not None
        self._producer.stdin.write("\n")
        self._producer.stdin.flush()
        async with asyncio.timeout(PATIENCE_S):
            while self._taken() < goal:
                await asyncio.sleep(LOOK_S)
        spent = time.process_time() - began
        if beating is not None:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
        return spent

    def _taken(self) -> int:
        return int(self._metrics.ticks._value.get())

    async def _beat(self) -> None:
        """As often as in a worker: at each burst once, and then every poll."""
        while True:
            await self.tuning.beat()
            await asyncio.sleep(self._settings.hotpath.poll_s)


def interval_of(ratios: Sequence[float], seed: int = 1) -> dict[str, float]:
    """The median of the ratios, and where it lies in 95 of 100 samples drawn from them."""
    rng = np.random.default_rng(seed)
    drawn = np.median(rng.choice(np.array(ratios), (RESAMPLES, len(ratios))), axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"median": median(ratios), "low": float(low), "high": float(high), "pairs": len(ratios)}


def pairs(count: int, ticks: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Processor time with the tuner over that without it."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder) / "redis", keep=False) as server:
        hotpath = {"directory": str(Path(folder) / "hotpath")}
        settings = load({"redis": {"url": server.url}, "hotpath": hotpath})
        bench = Bench(settings, server.url.removeprefix("unix://"), ticks)
        try:
            return asyncio.run(bench.run(count, say))
        finally:
            bench.close()


def feed(given: dict[str, Any]) -> None:
    """The producer's own process: a burst for each line that it is given."""
    ticks, wire, first = TickBytes(given["assets"], given["partitions"]), Wire(given["socket"]), 0
    for _ in sys.stdin:
        times_ns = time.time_ns() + np.arange(given["ticks"])
        for start in range(0, given["ticks"], 1024):
            part = times_ns[start : start + 1024]
            wire.send(ticks.commands(first + start, part), len(part))
        wire.settle()
        first += given["ticks"]


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.hotpath_cost", description="What the tuner costs.")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--pairs", type=int, default=200, help="0: without a worker")
    parser.add_argument("--ticks", type=int, default=4096, help="in a burst")
    parser.add_argument("--feed", help=argparse.SUPPRESS)
    asked = parser.parse_args(given)
    if asked.feed:
        return feed(json.loads(asked.feed))
    figures = about() | {
        "decision_ms": decisions(),
        "reading_ns": reading(),
        "measured_batch_us": {str(size): measuring(size) for size in SIZES},
    }
    if asked.pairs:
        figures |= pairs(asked.pairs, asked.ticks, (lambda _: None) if asked.json else print)
    print(json.dumps(rounded(figures), indent=None if asked.json else 1))


if __name__ == "__main__":
    main()
