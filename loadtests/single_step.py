"""What one asset in one process costs: a step, a step while snapshots are written, and a cold start.

    python -m loadtests.single_step [--json] [--steps N] [--every N]

Everything, the writing thread and XLA's own threads included, shares one core. Stretches with and without snapshots
take turns in the same run, so that a busy neighbour slows both alike; a step is what its caller sees of it.
A cold start is a whole process: interpreter, imports, program, first forecast.
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CORE = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
WARM_UP, STRETCH = 500, 500
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
    given = parser.parse_args()
    if CORE is not None:
        os.sched_setaffinity(0, {CORE})
    with tempfile.TemporaryDirectory() as folder:
        figures = {"machine": machine(), "cores": 1, **cold_starts(folder), **steps(folder, given.steps, given.every)}
    if given.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:<32} {value}" for name, value in figures.items()))


def cold_starts(folder: str) -> dict[str, float]:
    """Seconds to the first forecast, with nothing in the cache and then with everything; the best of three."""
    empty = _seconds(folder)
    return {
        "cold_start_compiling_s": round(empty, 2),
        "cold_start_cached_s": round(min(_seconds(folder) for _ in range(3)), 2),
    }


def _seconds(folder: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", FIRST_FORECAST, folder], check=True)
    return time.perf_counter() - started


def steps(folder: str, count: int, every: int) -> dict[str, float]:
    """Milliseconds of a step, without and with snapshots in the background."""
    import numpy as np

    from predictor_core import SnapshotPlan, UniversalPredictor

    logging.disable(logging.CRITICAL)  # a random walk has its alarms too
    keeping = UniversalPredictor(cache_dir=folder, snapshots=SnapshotPlan(Path(folder) / "snapshots", every=every))
    plain = UniversalPredictor(cache_dir=folder)
    values = 100 + np.random.default_rng(0).normal(size=WARM_UP + count + STRETCH).cumsum()
    _stretch(plain, values, 0, WARM_UP)
    _stretch(keeping, values, 0, WARM_UP)
    without, during = [], []
    for first in range(WARM_UP, WARM_UP + count, STRETCH):
        without += _stretch(plain, values, first, first + STRETCH)
        during += _stretch(keeping, values, first, first + STRETCH)
    keeping.flush()
    status = keeping.snapshots
    one, other = np.percentile(without, [50, 99]), np.percentile(during, [50, 99])
    return {
        "step_p50_ms": _ms(one[0]),
        "step_p99_ms": _ms(one[1]),
        "step_with_snapshots_p50_ms": _ms(other[0]),
        "step_with_snapshots_p99_ms": _ms(other[1]),
        "p99_ratio": round(float(other[1] / one[1]), 3),
        "steps": len(without),
        "steps_between_snapshots": every,
        "snapshots_written": status.written,
        "snapshots_superseded": status.superseded,
        "snapshot_bytes": status.last_bytes,
        "snapshot_write_ms": _ms(status.last_duration_s),
    }


def _stretch(predictor, values, first: int, last: int) -> list[float]:
    from predictor_core import ProcessState

    took = []
    for index in range(first, last):
        now = (1_700_000_000 + index) * 10**9
        observation = ProcessState(values[index], now)
        started = time.perf_counter()
        predictor.step(observation, now)
        took.append(time.perf_counter() - started)
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
