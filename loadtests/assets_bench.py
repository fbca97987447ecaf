"""`predictor bench assets`: what a tick costs with few and with very many assets, end to end, in turns in one run.

Each fleet first serves some ticks of every asset, so that no state is new while it is measured, and states have to be
stored. A worker keeps `rows_kept` states in memory. When there are more assets than that, states that are not in use
make room (they are in Redis by then) and come back from Redis with their asset's next tick; the assets tick in turn
here, which is the worst order for it. So the largest number is measured twice, with the default and with room for all.

The machine's memory is filled first (`pagecache`): these fleets need very different amounts of it.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from loadtests.capacity_bench import bytes_left
from loadtests.pagecache import page_cache
from loadtests.resources import memory_bytes
from loadtests.results import about
from loadtests.rig import HOME, PRODUCT, Rig, Shape
from loadtests.statistics import medians, rated, ratio
from worker.settings import WorkerSettings

PARTIES = ("graph", "worker", "server")
ROOM = 8192  # slots beyond the assets, for what is in flight
BAR = 1.5
SERVED_FIRST = 8  # ticks of each asset: for as many each state is stored once
ASSETS = (1000, 10_000, 100_000)


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long."""

    assets: Sequence[int] = ASSETS
    runs: int = 5
    warm_s: float = 2.0
    seconds: float = 12.0
    partitions: int = 16
    fresh_memory: bool = False


def measure(plan: Plan, on_progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """All figures of the bench."""
    figures = about()
    shapes = variants(plan)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in shapes}
    with nullcontext(lambda: None) if plan.fresh_memory else page_cache(HOME) as fill:
        for run in range(plan.runs):
            for name, shape in shapes.items():
                fill()
                with Rig(shape) as rig:
                    runs[name].append(_run(rig, plan))
                on_progress(f"run {run + 1}  {name:<28}{runs[name][-1]['ticks_per_second']:>10,.0f} ticks/s")
    first, *others = shapes
    return {
        **figures,
        "partitions": plan.partitions,
        "seconds": plan.seconds,
        "memory": "fresh" if plan.fresh_memory else "filled before each fleet",
        "rows_kept": _rows_kept(),
        "runs": {
            name: {"assets": shapes[name].assets, **medians(each), "runs": rated(each)} for name, each in runs.items()
        },
        "cost_ratios": {name: ratio(_costs(runs[name]), _costs(runs[first])) for name in others},
    }


def variants(plan: Plan) -> dict[str, Shape]:
    """A fleet for each number of assets; where they do not fit the default, another one that has room for all."""
    shapes = {}
    for assets in sorted(plan.assets):
        shape = Shape(PRODUCT, partitions=plan.partitions, assets=assets)
        shapes[f"{assets:,} assets"] = shape
        if assets > _rows_kept():
            room = (("USP_WORKER__ROWS_KEPT", str(assets + ROOM)),)
            shapes[f"{assets:,} assets, room for all"] = replace(shape, settings=room)
    return shapes


def _rows_kept() -> int:
    return WorkerSettings().rows_kept


def _run(rig: Rig, plan: Plan) -> dict[str, Any]:
    found = rig.saturate(plan.warm_s, plan.seconds, warm_ticks=SERVED_FIRST * rig.shape.assets)
    told: Any = rig.redis.info("memory")
    return {
        **found,
        "worker_bytes": float(sum(map(memory_bytes, rig.worker_pids()))),
        "redis_bytes": float(told["used_memory"]),
        "bytes_left": bytes_left(rig),
    }


def _costs(runs: list[dict[str, Any]]) -> list[float]:
    """CPU per tick of those who serve it."""
    return [sum(run["cpu_us_per_tick"][party] for party in PARTIES) for run in runs]


def table(figures: dict[str, Any]) -> str:
    """For a person."""
    head = "".join(f"{party:>9}" for party in PARTIES)
    lines = [f"{'':<32}{'ticks/s':>10}{head}  us CPU/tick{'worker MB':>11}{'Redis MB':>10}{'cost':>7}  into Redis"]
    for name, run in figures["runs"].items():
        spent = "".join(f"{run['cpu_us_per_tick'][party]:>9.2f}" for party in PARTIES)
        sizes = f"{run['worker_bytes'] / 1e6:>11,.0f}{run['redis_bytes'] / 1e6:>10,.0f}"
        cost = f"{figures['cost_ratios'].get(name, 1.0):>7.2f}{run['server_per_tick']['in_bytes']:>7,.0f} B/tick"
        lines.append(f"{name:<32}{run['ticks_per_second']:>10,.0f}{spent}{'':>13}{sizes}{cost}")
    lines.append(f"memory: {figures['memory']}")
    lines.append(f"a worker keeps {figures['rows_kept']:,} states unless told otherwise; the bar for the cost is {BAR}")
    return "\n".join(lines)
