"""`predictor bench peers`: the same job by a worker that takes one tick at a time, in the same run.

    python -m loadtests.peers per-tick URL NAME PARTITIONS      the peer's own process

The peer is the usual shape of a stream worker: one consumer of one group; for each tick GET the state, one jitted step
for one asset, SET the state, XADD the prediction, XACK. It runs the same model on the same ticks, and keeps none of the
promises: a crash between two of its commands loses or repeats a tick.
"""

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from redis import Redis

from loadtests.pipeline_bench import VARIANTS
from loadtests.results import about
from loadtests.rig import PEER, Rig, Shape
from loadtests.statistics import medians, ratio

COUNT, BLOCK_MS = 100, 100
GROUP = "peer"
PEERS = {"one tick at a time": Shape(PEER, waiting=2000)}
OURS = "product"


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long."""

    runs: int = 3
    warm_s: float = 2.0
    seconds: float = 5.0
    assets: int = 2048
    partitions: int = 16


def measure(plan: Plan, on_progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """All figures of the bench; ours and theirs take turns."""
    figures = about()
    shapes = {OURS: VARIANTS[OURS], **PEERS}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in shapes}
    for run in range(plan.runs):
        for name, shape in shapes.items():
            with Rig(replace(shape, assets=plan.assets, partitions=plan.partitions)) as rig:
                runs[name].append(rig.saturate(plan.warm_s, plan.seconds))
            on_progress(f"run {run + 1}  {name:<28}{runs[name][-1]['ticks_per_second']:>10,.0f} ticks/s")
    rates = {name: [run["ticks_per_second"] for run in each] for name, each in runs.items()}
    return {
        **figures,
        "assets": plan.assets,
        "partitions": plan.partitions,
        "full_load": {name: {**medians(each), "runs": rates[name]} for name, each in runs.items()},
        "times": {name: ratio(rates[OURS], rates[name]) for name in PEERS},
    }


def table(figures: dict[str, Any]) -> str:
    """For a person."""
    lines = [f"{run['ticks_per_second']:>10,.0f} ticks/s  {name}" for name, run in figures["full_load"].items()]
    return "\n".join(lines + [f"{times:>10.1f} x        {name}" for name, times in figures["times"].items()])


class PerTickWorker:
    """The peer."""

    def __init__(self, path: str, partitions: int) -> None:
        from loadtests.single_lane import SingleLane
        from predictor_core import PredictorConfig

        self._redis = Redis(unix_socket_path=path)
        self._lane = SingleLane(PredictorConfig(), Path(".predictor/cache"))
        self._homes = {f"usp:{{{partition}}}:ticks".encode(): f"usp:{{{partition}}}" for partition in range(partitions)}
        for key in self._homes:
            self._redis.xgroup_create(key, GROUP, "0", mkstream=True)

    def serve(self, stopped: list[int]) -> None:
        streams: Any = dict.fromkeys(self._homes, ">")
        while not stopped:
            reply: Any = self._redis.xreadgroup(GROUP, "1", streams, COUNT, BLOCK_MS)
            for key, entries in reply or ():
                for entry_id, fields in entries:
                    self._tick(key, entry_id, fields)
                # Not a part of the job: it tells the bench how far we are.
                self._redis.hincrby(self._homes[key] + ":control", "applied", len(entries))

    def _tick(self, key: bytes, entry_id: bytes, fields: dict[bytes, bytes]) -> None:
        home, asset, time_ns = self._homes[key], fields[b"a"], int(fields[b"t"])
        state = home.encode() + b":state:" + asset
        record: Any = self._redis.get(state)
        row = np.frombuffer(record, self._lane.cold.dtype) if record else self._lane.cold
        arrival_ns = int(entry_id[:13]) * 1_000_000
        self._redis.set(state, self._lane.step(row, float(fields[b"y"]), time_ns, arrival_ns).tobytes())
        payload: Any = msgpack.packb(self._lane.result().tobytes())
        self._redis.xadd(home + ":predictions", {b"a": asset, b"t": fields[b"t"], b"p": payload})
        self._redis.xack(key, GROUP, entry_id)


def main() -> None:
    _, url, _, partitions = sys.argv[1:]
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    PerTickWorker(url.removeprefix("unix://"), int(partitions)).serve(stopped)


if __name__ == "__main__":
    main()
