"""What one asset in one process costs: a step, a step while snapshots are written, and a cold start.

    python -m loadtests.single_step [--json] [--steps N] [--every N] [--rate N] [--own-core] [--cache DIR]

Everything, the writing thread and XLA's own threads included, shares one core. Stretches with and without snapshots
take turns in the same run, so that a busy neighbour slows both alike. A step is told twice: as its caller sees it, and
as the processor time that all threads of the process spend in it, which is what it takes on a core without neighbours.
With --own-core (root, Linux) the kernel gives this process its core before all others, so that both are nearly one; add
--rate then, or the core is never idle and the disk, which the kernel serves on it, falls behind (superseded snapshots).
A cold start is a whole process: interpreter, imports, program, first forecast.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CORE = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
WARM_UP, STRETCH, STARTS = 500, 500, 5
FIRST_FORECAST = """
import sys
from predictor_core import ProcessState, UniversalPredictor
predictor = UniversalPredictor(cache_dir=sys.argv[1])
predictor.step(ProcessState(1.0, 10**18), 10**18)
"""


def main() -> None:
    about = "What one asset in one process costs, on one core."
    parser = argparse.ArgumentParser(prog="python -m loadtests.single_step", description=about)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--steps", type=int, default=20_000, help="steps with and steps without snapshots")
    parser.add_argument("--every", type=int, default=100, help="steps between two snapshots")
    parser.add_argument("--rate", type=float, default=0.0, help="steps a second (default: one after the other)")
    parser.add_argument("--own-core", action="store_true", help="before all other processes on the core (root, Linux)")
    parser.add_argument("--cache", help="folder of compiled programs that is warm already: skips the start without one")
    given = parser.parse_args()
    _stay_on_one_core(given.own_core)
    with tempfile.TemporaryDirectory() as folder:
        cache = given.cache or f"{folder}/cache"
        figures = {
            "machine": machine(),
            "core": "own" if given.own_core else "shared",
            **({} if given.cache else {"cold_start_compiling_s": round(_seconds(cache), 2)}),
            **cold_starts(cache),
            **steps(cache, folder, given.steps, given.every, 1 / given.rate if given.rate else 0.0),
        }
    if given.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:<32} {value}" for name, value in figures.items()))


def _stay_on_one_core(before_all_others: bool) -> None:
    if CORE is not None:
        os.sched_setaffinity(0, {CORE})
    if before_all_others:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def cold_starts(cache: str) -> dict[str, float]:
    """Seconds to the first forecast with a warm cache."""
    _seconds(cache)
    took = [_seconds(cache) for _ in range(STARTS)]
    return {
        "cold_start_cached_best_s": round(min(took), 2),
        "cold_start_cached_median_s": round(statistics.median(took), 2),
    }


def _seconds(cache: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", FIRST_FORECAST, cache], check=True)
    return time.perf_counter() - started


def steps(cache: str, folder: str, count: int, every: int, interval_s: float) -> dict[str, float]:
    """Milliseconds of a step, without and with snapshots in the background."""
    import numpy as np

    from predictor_core import SnapshotPlan, UniversalPredictor

    logging.disable(logging.CRITICAL)  # a random walk has its alarms too
    keeping = UniversalPredictor(cache_dir=cache, snapshots=SnapshotPlan(Path(folder) / "snapshots", every=every))
    plain = UniversalPredictor(cache_dir=cache)
    values = 100 + np.random.default_rng(0).normal(size=WARM_UP + count + STRETCH).cumsum()
    _stretch(plain, values, 0, WARM_UP)
    _stretch(keeping, values, 0, WARM_UP)
    without, during = [], []
    for first in range(WARM_UP, WARM_UP + count, STRETCH):
        without += _stretch(plain, values, first, first + STRETCH, interval_s)
        during += _stretch(keeping, values, first, first + STRETCH, interval_s)
    keeping.flush()
    status = keeping.snapshots
    (one, one_cpu), (other, other_cpu) = (np.percentile(took, [50, 99], 0).T for took in (without, during))
    return {
        "step_p50_ms": _ms(one[0]),
        "step_p99_ms": _ms(one[1]),
        "step_cpu_p99_ms": _ms(one_cpu[1]),
        "step_with_snapshots_p50_ms": _ms(other[0]),
        "step_with_snapshots_p99_ms": _ms(other[1]),
        "step_with_snapshots_cpu_p99_ms": _ms(other_cpu[1]),
        "p99_ratio": round(float(other[1] / one[1]), 3),
        "cpu_p99_ratio": round(float(other_cpu[1] / one_cpu[1]), 3),
        "steps": len(without),
        "steps_between_snapshots": every,
        "snapshots_written": status.written,
        "snapshots_superseded": status.superseded,
        "snapshot_bytes": status.last_bytes,
        "snapshot_write_ms": _ms(status.last_duration_s),
    }


def _stretch(predictor, values, first: int, last: int, interval_s: float = 0.0) -> list[tuple[float, float]]:
    """Seconds of each step: those that passed, and those that the processor spent on all threads."""
    from predictor_core import ProcessState

    took, due = [], time.perf_counter()
    for index in range(first, last):
        due += interval_s
        if (early := due - time.perf_counter()) > 0:
            time.sleep(early)
        now = (1_700_000_000 + index) * 10**9
        observation = ProcessState(values[index], now)
        spent, started = time.process_time(), time.perf_counter()
        predictor.step(observation, now)
        took.append((time.perf_counter() - started, time.process_time() - spent))
    return took


def _ms(seconds: float) -> float:
    return round(1e3 * float(seconds), 3)


def machine() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
