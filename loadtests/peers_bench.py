"""`predictor bench peers`: the same ticks served by others, in turns with us in the same run.

Each peer does one asset's job for each tick: the state, one step of a model, the next state, the prediction. All but
river's have our model: in one jitted lane, made for this bench and kinder than what its users have, or as they have it,
by a call of the library. Ours has as many workers as the peer has processes. What each promises is what it is built to
keep when a process dies at any moment, used as in `loadtests/peers`:

    once   every tick has one prediction and one effect on its asset's state
    order  an asset's ticks are served in the order in which they were sent
    bytes  states and predictions are those of a run in which nothing died
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from loadtests.results import about
from loadtests.rig import PRODUCT, Rig, Shape
from loadtests.statistics import medians, rated, ratio
from worker.errors import BadInput

OURS = {1: "product", 2: "product, 2 workers"}
WAITING = 2000
PROMISES = ("once", "order", "bytes")


@dataclass(frozen=True)
class Peer:
    """How it is started, what it has to be installed with, and what it keeps."""

    kind: str
    needs: str | None = None
    keeps: tuple[str, ...] = ()
    processes: int = 2

    @property
    def shape(self) -> Shape:
        return Shape(self.kind, workers=self.processes, waiting=WAITING)

    @property
    def missing(self) -> bool:
        return self.needs is not None and importlib.util.find_spec(self.needs) is None


# A queue hands the tasks of an asset to whoever is free, and runs what a dead process had again: order and states are
# lost. A consumer group keeps the order, but not what lies between two commands. bytewax goes back to a place in the
# streams and the states of that moment, and predicts again what was predicted since.
PEERS = {
    "one tick at a time, alone": Peer("per-tick", keeps=("order",), processes=1),
    "one tick at a time": Peer("per-tick", keeps=("order",)),
    "one tick at a time, library": Peer("per-tick-library", keeps=("order",)),
    "taskiq-redis": Peer("taskiq", "taskiq_redis"),
    "streaq": Peer("streaq", "streaq"),
    "bytewax": Peer("bytewax", "bytewax", keeps=("order", "bytes")),
    "bytewax, library": Peer("bytewax-library", "bytewax", keeps=("order", "bytes")),
    "river regression": Peer("river-linear", "river", keeps=("order",)),
    "river Holt-Winters": Peer("river-holt-winters", "river", keeps=("order",)),
}


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long."""

    runs: int = 3
    warm_s: float = 2.0
    seconds: float = 5.0
    assets: int = 2048
    partitions: int = 16
    peers: tuple[str, ...] = tuple(PEERS)


def measure(plan: Plan, on_progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """All figures of the bench; ours and theirs take turns."""
    check_installed(plan.peers)
    figures = about()
    ours = {OURS[count]: Shape(PRODUCT, workers=count) for count in {PEERS[name].processes for name in plan.peers}}
    shapes = ours | {name: PEERS[name].shape for name in plan.peers}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in shapes}
    for run in range(plan.runs):
        for name, shape in shapes.items():
            with Rig(replace(shape, assets=plan.assets, partitions=plan.partitions)) as rig:
                runs[name].append(rig.saturate(plan.warm_s, plan.seconds))
            on_progress(f"run {run + 1}  {name:<28}{runs[name][-1]['ticks_per_second']:>10,.0f} ticks/s")
    rates = {name: rated(each) for name, each in runs.items()}
    return {
        **figures,
        "assets": plan.assets,
        "partitions": plan.partitions,
        "seconds": plan.seconds,
        "full_load": {name: {**medians(each), "runs": rates[name]} for name, each in runs.items()},
        "times": {name: _times(rates[OURS[PEERS[name].processes]], rates[name]) for name in plan.peers},
        "keeps": dict.fromkeys(ours, PROMISES) | {name: PEERS[name].keeps for name in plan.peers},
    }


def check_installed(peers: tuple[str, ...]) -> None:
    """Raises BadInput with one line when a name or a library is unknown here."""
    if unknown := [name for name in peers if name not in PEERS]:
        raise BadInput(f"bench peers: {unknown[0]!r} is none of {', '.join(PEERS)}")
    missing = [name for name in peers if PEERS[name].missing]
    if missing:
        raise BadInput(
            f"bench peers needs {', '.join(missing)}: install universal-predictor[peers] "
            f"(bytewax: Python below 3.13), or leave some out with --only."
        )


def table(figures: dict[str, Any]) -> str:
    """For a person."""
    head = f"{'':<28}{'ticks/s':>10}{'CPU us/tick':>13}{'times slower':>14}{'least-most':>16}"
    lines = [head + "".join(f"{promise:>7}" for promise in PROMISES)]
    for name, run in figures["full_load"].items():
        times = figures["times"].get(name)
        slower = f"{times['median']:>14.1f}{times['least']:>8.1f}-{times['most']:<7.1f}" if times else f"{'':>30}"
        kept = "".join(f"{'yes' if promise in figures['keeps'][name] else 'no':>7}" for promise in PROMISES)
        lines.append(f"{name:<28}{run['ticks_per_second']:>10,.0f}{_cpu(run):>13.1f}{slower}{kept}")
    return "\n".join(lines)


def _cpu(run: dict[str, Any]) -> float:
    """Of those who serve a tick: not of producer and reader."""
    return sum(run["cpu_us_per_tick"][party] for party in ("graph", "worker", "server"))


def _times(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """How many times as fast we are: the median over neighbours, and how far they lie apart."""
    pairs = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return {"median": ratio(ours, theirs), "least": min(pairs), "most": max(pairs)}
