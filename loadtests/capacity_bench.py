"""`predictor bench capacity`: what a fleet can take, told from a few prices, and checked against what it takes.

The prices (`capacity.py`) come from two runs of one worker whose commits carry few and many ticks: its CPU, Redis's and
the graph's, never its throughput. They foretell the throughput of one worker with other partitions, and of two workers;
both are then measured in turns with the rest. How many ticks a commit carries, and how much of the machine others
took, is read off the run that is foretold: the first is a setting's doing, the second is not ours.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from loadtests.capacity import Demand, Model, Observation, Sizes, calibrated, need
from loadtests.results import about
from loadtests.rig import PRODUCT, Rig, Shape
from loadtests.statistics import medians
from predictor_core import Program

SMALL_COMMITS = (("USP_WORKER__COMMIT_BYTES_MAX", "150000"),)
FEW, MANY = "small commits", "large commits"
CALIBRATION = {FEW: Shape(PRODUCT, settings=SMALL_COMMITS), MANY: Shape(PRODUCT)}
CHECKED = {"1 worker, 8 partitions": Shape(PRODUCT, partitions=8), "2 workers": Shape(PRODUCT, workers=2)}
AIM = 0.15
RATES = (100_000.0, 1_000_000.0)
ASSETS = (10_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long."""

    runs: int = 3
    warm_s: float = 2.0
    seconds: float = 5.0
    assets: int = 2048


def measure(plan: Plan, on_progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Calibrates, foretells, measures."""
    figures = about()
    shapes = {**CALIBRATION, **CHECKED}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in shapes}
    left: dict[str, float] = {}
    for run in range(plan.runs):
        for name, shape in shapes.items():
            with Rig(replace(shape, assets=plan.assets)) as rig:
                runs[name].append(rig.saturate(plan.warm_s, plan.seconds))
                left = bytes_left(rig) if name == MANY else left
            on_progress(f"run {run + 1}  {name:<28}{runs[name][-1]['ticks_per_second']:>10,.0f} ticks/s")
    return {**figures, "assets": plan.assets, "seconds": plan.seconds, **worked_out(runs, left)}


def worked_out(runs: dict[str, list[dict[str, Any]]], left: dict[str, float]) -> dict[str, Any]:
    """Prices, what they foretell, and what a cluster needs."""
    found = {name: medians(each) for name, each in runs.items()}
    model = _model(found, left)
    ticks_per_commit = _ticks_per_commit(found[MANY])
    return {
        "runs": found,
        "model": asdict(model),
        "checks": {name: _check(model, CHECKED[name], found[name]) for name in CHECKED},
        "ticks_per_commit": ticks_per_commit,
        "needs": [_needed(model, rate, assets, ticks_per_commit) for rate in RATES for assets in ASSETS],
    }


def bytes_left(rig: Rig) -> dict[str, float]:
    """Bytes in Redis of an asset, of a kept tick and of a kept prediction."""
    redis: Any = rig.redis

    def usage(name: str) -> int:
        return sum(redis.memory_usage(key, samples=0) or 0 for key in rig.keys(name))

    def entries(name: str) -> int:
        return max(1, sum(redis.xlen(key) for key in rig.keys(name)))

    assets = max(1, sum(redis.hlen(key) for key in rig.keys("states")))
    return {
        "asset": (usage("states") + usage("latest")) / assets,
        "kept_tick": usage("ticks") / entries("ticks"),
        "kept_prediction": usage("predictions") / entries("predictions"),
    }


def _model(found: dict[str, dict[str, Any]], left: dict[str, float]) -> Model:
    few, many = (Observation(_ticks_per_commit(run), run["cpu_us_per_tick"]) for run in (found[FEW], found[MANY]))
    moved, spent = found[MANY]["server_per_tick"], found[MANY]["cpu_us_per_tick"]
    program = Program(Shape().config, cache_dir=None)
    sizes = Sizes(
        in_per_tick=moved["in_bytes"],
        out_per_tick=moved["out_bytes"],
        file_per_tick=moved["file_bytes"],
        row=float(program.words * program.dtype.itemsize),
        **left,
    )
    return Model(calibrated(few, many), spent["producer"] + spent["reader"], sizes)


def _ticks_per_commit(run: dict[str, Any]) -> float:
    return 1 / run["server_per_tick"]["commits"]


def _check(model: Model, shape: Shape, run: dict[str, Any]) -> dict[str, Any]:
    """What was foretold of a run beside what came."""
    cores = len(os.sched_getaffinity(0)) * (1 - run["cores_busy_with_others"])
    given = (shape.workers, cores, _ticks_per_commit(run))
    told, came = model.throughput(*given), run["ticks_per_second"]
    return {"foretold": told, "measured": came, "error": told / came - 1, "bound": model.bound(*given)}


def _needed(model: Model, rate: float, assets: int, ticks_per_commit: float) -> dict[str, Any]:
    demand = Demand(rate, assets, ticks_per_commit)
    return {"ticks_per_second": rate, "assets": assets, **asdict(need(model, demand))}


def faults(figures: dict[str, Any]) -> list[str]:
    """Checks that missed the aim."""
    checks = figures["checks"].items()
    return [f"{name}: {check['error']:+.0%} off" for name, check in checks if abs(check["error"]) > AIM]


def table(figures: dict[str, Any]) -> str:
    """For a person."""
    lines = [f"{'us of CPU':<12}{'a tick':>9}{'a commit':>10}"]
    for party, price in figures["model"]["prices"].items():
        lines.append(f"{party:<12}{price['each_tick']:>9.2f}{price['each_commit']:>10.0f}")
    lines.append("bytes: " + ", ".join(f"{name} {size:,.0f}" for name, size in figures["model"]["sizes"].items()))
    lines.append(f"{'':<26}{'foretold':>10}{'measured':>10}{'error':>8}  bound by")
    for name, check in figures["checks"].items():
        told, came = f"{check['foretold']:>10,.0f}", f"{check['measured']:>10,.0f}"
        lines.append(f"{name:<26}{told}{came}{check['error']:>8.0%}  {check['bound']}")
    lines += [f"beyond the aim of {AIM:.0%}: {fault}" for fault in faults(figures)]
    heads = ("shards", "workers", "in Mb/s", "out Mb/s", "file MB/s", "Redis GB", "rows GB")
    lines.append(f"{'needed for':<28}" + "".join(f"{head:>11}" for head in heads))
    for row in figures["needs"]:
        sizes = (8e-6 * row["redis_in_bytes_per_s"], 8e-6 * row["redis_out_bytes_per_s"])
        sizes += (1e-6 * row["file_bytes_per_s"], 1e-9 * row["redis_bytes"], 1e-9 * row["row_bytes"])
        cells = f"{row['shards']:>11,}{row['workers']:>11,}" + "".join(f"{size:>11,.1f}" for size in sizes)
        lines.append(f"{row['ticks_per_second']:>9,.0f}/s, {row['assets']:>9,} assets{cells}")
    return "\n".join(lines)
