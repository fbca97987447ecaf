"""`predictor bench pipeline`: throughput, latency and cost per tick of a fleet, and of the road without a predictor.

Every run is a fresh Redis with fresh workers; the variants take turns, so that a ratio is made of neighbours in time.

    product     workers as they are                           with the append-only file on and off, 1 and 2 workers
    identity    the same workers with a device that copies    what everything but the predictor costs
    distant     a device that needs time, but no core         what a second worker gives while the cores have time
    encoded     commits of the same bytes, made before        what Redis and the kernel cost
    client      the product fed by `TickProducer`              with ticks alone and in frames, else by ready bytes

Latency is measured by open load at shares of the capacity that the same fleet has just shown, and beside single ticks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loadtests.producer import ALONE, FRAMES
from loadtests.results import about
from loadtests.rig import DISTANT, ENCODED, IDENTITY, PRODUCT, Rig, Shape
from loadtests.statistics import median, medians, ratio

EVERY_TIME = (("USP_WORKER__STATE_EVERY", "1"),)
VARIANTS = {
    "product": Shape(PRODUCT),
    "identity": Shape(IDENTITY),
    "encoded": Shape(ENCODED),
    "product, states every time": Shape(PRODUCT, settings=EVERY_TIME),
    "product, no AOF": Shape(PRODUCT, aof=False),
    "product, no AOF, states every time": Shape(PRODUCT, aof=False, settings=EVERY_TIME),
    "identity, no AOF": Shape(IDENTITY, aof=False),
    "encoded, no AOF": Shape(ENCODED, aof=False),
    "client, ticks alone": Shape(PRODUCT, client=ALONE),
    "client, frames": Shape(PRODUCT, client=FRAMES),
    "product, 2 workers": Shape(PRODUCT, workers=2),
    "product, 2 workers, no AOF": Shape(PRODUCT, workers=2, aof=False),
    "distant": Shape(DISTANT),
    "distant, 2 workers": Shape(DISTANT, workers=2),
}
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
UNLOADED_RATE = 20.0  # one tick at a time
HALF = 0.5


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long."""

    runs: int = 3
    warm_s: float = 2.0
    seconds: float = 5.0
    halves: int = 3  # so often at half load in each fleet
    shares: Sequence[float] = SHARES
    variants: Sequence[str] = tuple(VARIANTS)
    assets: int = 2048
    partitions: int = 16
    settings: tuple[tuple[str, str], ...] = ()  # of the workers, as environment variables

    def shape(self, variant: str) -> Shape:
        shape = VARIANTS[variant]
        settings = (*self.settings, *shape.settings)
        return replace(shape, assets=self.assets, partitions=self.partitions, settings=settings)


def measure(plan: Plan, on_progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """All figures of the bench."""
    figures = about()
    full: dict[str, list[dict[str, Any]]] = {variant: [] for variant in plan.variants}
    for run in range(plan.runs):
        for variant in plan.variants:
            with Rig(plan.shape(variant)) as rig:
                full[variant].append(rig.saturate(plan.warm_s, plan.seconds))
            on_progress(f"run {run + 1}  {variant:<28}{full[variant][-1]['ticks_per_second']:>10,.0f} ticks/s")
    rows = [row for _ in range(plan.runs) for row in _latencies(plan, on_progress)]
    return {
        **figures,
        "assets": plan.assets,
        "partitions": plan.partitions,
        "settings": dict(plan.settings),
        "seconds": plan.seconds,
        "full_load": {variant: {**medians(runs), "runs": _rates(runs)} for variant, runs in full.items()},
        "ratios": _ratios(full) | latency_ratios(rows),
        "capacity": median([row["capacity"] for row in rows]),
        "unloaded": merged([row["alone"] for row in rows]),
        "latency": [merged([row for row in rows if row["share"] == share]) for share in plan.shares],
    }


def _rates(runs: list[dict[str, Any]]) -> list[float]:
    return [run["ticks_per_second"] for run in runs]


def _ratios(full: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Of runs that followed each other."""

    def throughput(over: str, under: str) -> float | None:
        return ratio(_rates(full[over]), _rates(full[under])) if {over, under} <= full.keys() else None

    ratios = {
        "throughput: product / identity": throughput("product", "identity"),
        "throughput: product / encoded": throughput("product", "encoded"),
        "throughput: states at times / every time": throughput("product", "product, states every time"),
        "throughput: states at times / every time, no AOF": throughput(
            "product, no AOF", "product, no AOF, states every time"
        ),
        "throughput: frames / ticks alone": throughput("client, frames", "client, ticks alone"),
        "throughput: AOF off / on": throughput("product, no AOF", "product"),
        "throughput: 2 workers / 1": throughput("product, 2 workers", "product"),
        "throughput: 2 workers / 1, no AOF": throughput("product, 2 workers, no AOF", "product, no AOF"),
        "throughput: 2 workers / 1, distant": throughput("distant, 2 workers", "distant"),
    }
    for variant in ("product", "product, no AOF"):
        if variant in full:
            spent = [run["cpu_us_per_tick"] for run in full[variant]]
            worker, server = [cpu["worker"] for cpu in spent], [cpu["server"] for cpu in spent]
            ratios[f"CPU: worker outside the graph / server, {variant}"] = ratio(worker, server)
    return {name: value for name, value in ratios.items() if value is not None}


def _latencies(plan: Plan, on_progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """One fleet at rising rates."""
    with Rig(plan.shape("product")) as rig:
        rows = []
        for share in plan.shares:
            for _ in range(plan.halves if share == HALF else 1):
                rows.append(_latency(rig, plan, share))
                said = "{share:4.0%} {rate:10,.0f} ticks/s  p99 {latency_ms[p99]:8.1f} ms"
                on_progress((said + ", alone {alone[latency_ms][p99]:.1f}").format(**rows[-1]))
    return rows


def _latency(rig: Rig, plan: Plan, share: float) -> dict[str, Any]:
    """At a share of the capacity, beside single ticks; one after the other, since the machine's speed changes."""
    capacity = rig.saturate(plan.warm_s / 2, plan.seconds / 2)["ticks_per_second"]
    alone = rig.load(UNLOADED_RATE, plan.warm_s / 4, plan.seconds)
    loaded = rig.load(share * capacity, plan.warm_s, plan.seconds)
    return {"share": share, "capacity": capacity, "alone": alone, **loaded}


def latency_ratios(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of runs that followed each other."""
    halves = [row for row in rows if row["share"] == HALF]
    if not halves:
        return {}
    loaded, alone = ([run["latency_ms"]["p99"] for run in runs] for runs in (halves, [row["alone"] for row in halves]))
    return {"p99: half load / one tick at a time": ratio(loaded, alone)}


def merged(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians; but what is missing in any run is missing, in the single ticks beside it too."""
    beside = {"alone": merged([row["alone"] for row in rows])} if "alone" in rows[0] else {}
    return {**medians(rows), "missing": sum(row["missing"] for row in rows), **beside}


def table(figures: dict[str, Any]) -> str:
    """For a person."""
    parties = ("graph", "worker", "server", "producer", "reader")
    head = f"{'at full load':<28}{'ticks/s':>10}" + "".join(f"{party:>10}" for party in parties)
    lines = [head + "  us CPU/tick    busy  others  stolen"]
    for variant, run in figures["full_load"].items():
        spent = "".join(f"{run['cpu_us_per_tick'][party]:>10.2f}" for party in parties)
        busy = f"{run['cores_busy']:>21.0%}{run['cores_busy_with_others']:>8.0%}{run['cores_stolen']:>8.0%}"
        lines.append(f"{variant:<28}{run['ticks_per_second']:>10,.0f}{spent}{busy}")
    lines += [f"{value:>8.2f}  {name}" for name, value in figures["ratios"].items()]
    lines.append(f"{'load':<8}{'ticks/s':>10}" + "".join(f"{tail:>10}" for tail in figures["unloaded"]["latency_ms"]))
    for row in [{"share": 0.0, **figures["unloaded"]}, *figures["latency"]]:
        tails = "".join(f"{value:>10.1f}" for value in row["latency_ms"].values())
        lines.append(f"{row['share']:<8.0%}{row['ticks_per_second']:>10,.0f}{tails}  ms")
    return "\n".join(lines)
