"""Where a worker's CPU goes outside the graph: the time of every function on the path of a tick, per tick.

    python -m loadtests.stages [--json] [--seconds S] [--assets N]

A worker with a device that only copies (loadtests.floor) serves a full log. Each function below is timed by the CPU
clock of its thread, so that other work on the machine does not count. What is left over is the event loop, the kernel's
share of reading and writing, and the garbage collector.
"""

import argparse
import asyncio
import functools
import gc
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvloop

import state_store.commit
import state_store.partition
import worker.pipeline
from loadtests.floor import IdentityDevice, serve_identity
from loadtests.rig import STAGES, Rig, Shape
from state_store.wire import Connection
from worker.holding import Holding
from worker.pipeline import Pipeline
from worker.settings import load

# Owner and name, in the order of the path; none lies inside another.
PATH = [
    (Connection, "data_received"),
    (state_store.partition, "parse"),
    (Holding, "push"),
    (Pipeline, "_backlogs"),
    (worker.pipeline, "take"),
    (Holding, "take"),
    (worker.pipeline, "work_of"),
    (IdentityDevice, "_run"),
    (Pipeline, "_observe"),
    (worker.pipeline, "commits_of"),
    (state_store.partition, "build"),
    (state_store.partition, "executed"),
    (Connection, "send"),
    (Pipeline, "_count"),
]
SAY_EVERY_S = 1.0


class Clock:
    """CPU seconds and calls of each stage so far."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._collecting = 0.0

    def watch(self, owner: Any, name: str) -> None:
        """From now on this function is timed."""
        function, stage = getattr(owner, name), f"{owner.__name__.rpartition('.')[2]}.{name}"
        self.seconds[stage], self.calls[stage] = 0.0, 0
        setattr(owner, name, self._timed(function, stage))

    def _timed(self, function: Callable, stage: str) -> Callable:
        @functools.wraps(function)
        def timed(*given: Any, **named: Any) -> Any:
            started = time.thread_time()
            try:
                made = function(*given, **named)
                return iter(list(made)) if isinstance(made, Iterator) else made
            finally:
                self.seconds[stage] += time.thread_time() - started
                self.calls[stage] += 1

        return timed

    def watch_collector(self) -> None:
        """The garbage collector runs inside the other stages; its time is a part of theirs. A start's is left out."""
        stage = "(garbage collector)"
        self.seconds[stage], self.calls[stage] = 0.0, 0

        def on_phase(phase: str, _: dict) -> None:
            if not gc.get_freeze_count():
                return
            if phase == "start":
                self._collecting = time.thread_time()
            else:
                self.seconds[stage] += time.thread_time() - self._collecting
                self.calls[stage] += 1

        gc.callbacks.append(on_phase)


def serve(url: str, name: str) -> None:
    """The worker's own process: says how far its clocks are every second."""
    clock = Clock()
    for owner, function in PATH:
        clock.watch(owner, function)
    clock.watch_collector()

    async def say() -> None:
        while True:
            await asyncio.sleep(SAY_EVERY_S)
            print(json.dumps({"seconds": clock.seconds, "calls": clock.calls}), flush=True)

    async def run() -> None:
        saying = asyncio.create_task(say())
        await serve_identity(load({"redis": {"url": url}, "worker": {"name": name}}))
        saying.cancel()

    logging.basicConfig(level=logging.WARNING)
    uvloop.run(run())


def measure(seconds: float, assets: int = 2048, partitions: int = 16) -> dict[str, Any]:
    """Microseconds of CPU per tick of each stage and of the whole worker; and how many ticks a commit had."""
    with Rig(Shape(STAGES, aof=False, assets=assets, partitions=partitions)) as rig:
        whole = rig.saturate(0.5, seconds, warm_ticks=assets)["cpu_us_per_tick"]["worker"]
        said = [json.loads(line) for line in rig.said().splitlines() if line.startswith("{")][-1]
        ticks = rig.applied()
    calls, spent = said["calls"], said["seconds"]
    stages = {name: {"us_per_tick": 1e6 * spent[name] / ticks, "calls": calls[name]} for name in calls}
    return {"ticks_per_commit": ticks / calls["partition.build"], "whole_us_per_tick": whole, "stages": stages}


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == STAGES:
        return serve(sys.argv[2], sys.argv[3])
    parser = argparse.ArgumentParser(prog="python -m loadtests.stages", description="A worker's CPU, stage by stage.")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--assets", type=int, default=2048)
    given = parser.parse_args()
    figures = measure(given.seconds, given.assets)
    if given.json:
        return print(json.dumps(figures))
    for name, stage in figures["stages"].items():
        print(f"{stage['us_per_tick']:8.3f} us/tick {stage['calls']:>8,} calls  {name}")
    whole = figures["whole_us_per_tick"]
    print(f"{whole:8.3f} us/tick the whole worker, {figures['ticks_per_commit']:.0f} ticks a commit")


if __name__ == "__main__":
    main()
