"""What the tuner costs: a decision, reading the knobs, a measured micro-batch, and a whole worker with and without it.

    python -m loadtests.hotpath_cost [--json] [--pairs N] [--seconds S]

The worker is measured in pairs, with the tuner and without in turns, so that what slows the machine slows both.
"""

import argparse
import json
import random
import time
import timeit
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from loadtests.results import about
from loadtests.rig import Rig, Shape
from loadtests.statistics import median, percentiles, rounded
from scheduler.batching import BatchLimits
from scheduler.hotpath import AdaptiveEngine, NoChange, TelemetryDigest, Violation
from worker.hotpath.engine import engine_config, first_gains
from worker.hotpath.knobs import REGISTRY, Knobs
from worker.hotpath.measures import Measures
from worker.rows import RowTable
from worker.settings import HotpathSettings

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
    batch, answer = SimpleNamespace(knobs=knobs, work=work, parts=()), SimpleNamespace(results=np.zeros(ticks, RESULT))
    count, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        measures.committed(batch, answer)  # type: ignore[arg-type]
        count += 1
    return 1e6 * (time.process_time() - began) / count


def pairs(count: int, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """CPU and throughput of a worker at full load: each with the tuner over without it, pair by pair."""
    found: list[tuple[dict, dict]] = []
    for number in range(count):
        order = ("true", "false") if number % 2 else ("false", "true")
        runs = {enabled: _saturated(enabled, seconds) for enabled in order}
        found.append((runs["true"], runs["false"]))
        say(f"pair {number + 1}: {_cpu(found[-1][0]) / _cpu(found[-1][1]):.4f} of the CPU per tick")
    cpu = [_cpu(on) / _cpu(off) for on, off in found]
    rates = [on["ticks_per_second"] / off["ticks_per_second"] for on, off in found]
    return {
        "cpu_per_tick_ratio": median(cpu),
        "cpu_ratios": sorted(cpu),
        "throughput_ratio": median(rates),
        "throughput_ratios": sorted(rates),
    }


def _saturated(enabled: str, seconds: float) -> dict[str, Any]:
    settings = (("USP_HOTPATH__ENABLED", enabled),)
    with Rig(Shape(partitions=8, assets=1024, settings=settings)) as rig:
        return rig.saturate(2.0, seconds)


def _cpu(run: dict[str, Any]) -> float:
    """Of the worker, the graph included."""
    return run["cpu_us_per_tick"]["worker"] + run["cpu_us_per_tick"]["graph"]


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.hotpath_cost", description="What the tuner costs.")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--pairs", type=int, default=5, help="0: without a fleet")
    parser.add_argument("--seconds", type=float, default=6.0)
    asked = parser.parse_args(given)
    figures = about() | {
        "decision_ms": decisions(),
        "reading_ns": reading(),
        "measured_batch_us": {str(size): measuring(size) for size in SIZES},
    }
    if asked.pairs:
        figures |= pairs(asked.pairs, asked.seconds, (lambda _: None) if asked.json else print)
    print(json.dumps(rounded(figures), indent=None if asked.json else 1))


if __name__ == "__main__":
    main()
