"""`predictor bench soak`: a fleet under constant load for as long as wanted, while it is hurt again and again.

Every so often the youngest worker is killed or ended, Redis is restarted, or all connections are cut. The oldest worker
lives through all of it; its memory, open files and threads, the memory of Redis and the length of its logs are looked
at every second. After a warm-up, in which the logs reach their retention, none of them may grow by more than 2 %, but
for ticks that wait meanwhile. In the end the calm reference judges every tick.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from loadtests.arena import Arena, Fault, History, Member, Shape
from loadtests.chaos import cut_connections, end_in_time, open_arena, restart_redis
from loadtests.judge import Reference
from loadtests.resources import memory_bytes, open_files, threads
from loadtests.results import about
from loadtests.trend import trend
from state_store import StateStoreError
from worker.exits import alone
from worker.settings import load

LOOK_EVERY_S = 1.0
READ_EVERY_S = 0.5
KEPT = 8192  # entries of a log: the least that a worker accepts
SLACK = 1.1  # Redis cuts whole blocks off a log
GROWTH_MAX = 0.02
LOGS = ("ticks", "predictions")
WAITING = "ticks"  # these wait, more than are kept, while Redis or a worker is away: the only series that may grow


@dataclass(frozen=True)
class Plan:
    """How long, and how often it is hurt."""

    minutes: float = 60.0
    fault_every_s: float = 15.0
    warm_share: float = 0.35  # of the time
    shape: Shape = Shape(
        partitions=4,
        workers=2,
        lease_ms=2000,
        assets=400,
        rate=1500.0,
        kept=KEPT,
        options=(("auto-aof-rewrite-min-size", "256mb"),),  # so that the last restart takes no longer than the first
    )
    cache_dir: Path = Path(".predictor/cache")
    seed: int = 1


@dataclass
class Samples:
    """One series for each thing that is looked at: seconds since the start, and values."""

    started: float
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def note(self, name: str, value: float) -> None:
        self.series.setdefault(name, []).append((time.monotonic() - self.started, value))


def measure(plan: Plan, on_progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Runs it; raises `Failed` when the fleet does what it must not."""
    figures = about()
    samples = Samples(time.monotonic())
    done: dict[str, int] = {}

    async def soak(history: History) -> None:
        samples.started = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(_look(history.arena, samples)), tasks.create_task(_read_along(history))]
            try:
                await _hurt(history, plan, done, on_progress)
            finally:
                for task in beside:
                    task.cancel()

    try:
        judged = asyncio.run(_play(plan, soak))
    except BaseExceptionGroup as group:
        raise alone(group) from None
    warm_s = plan.minutes * 60 * plan.warm_share
    trends = {name: _trend(points, warm_s) for name, points in samples.series.items()}
    return {
        **figures,
        "minutes": plan.minutes,
        "rate": plan.shape.rate,
        "workers": plan.shape.workers,
        "warm_up_s": warm_s,
        "faults": done,
        "ticks_judged": judged,
        "trends": trends,
        "predictions_kept_max": max((value for _, value in samples.series.get("predictions", ())), default=0.0),
        "kept": plan.shape.kept,
        "growing": [name for name, found in trends.items() if found and found["grows"] and name != WAITING],
        "course": {name: _thinned(points) for name, points in samples.series.items()},
    }


async def _play(plan: Plan, soak: Fault) -> int:
    reference = Reference(load({"worker": {"cache_dir": str(plan.cache_dir)}}))
    async with open_arena(plan.shape, reference, plan.cache_dir) as arena:
        return await arena.play("soak", [soak], Random(plan.seed))


async def _hurt(history: History, plan: Plan, done: dict[str, int], on_progress: Callable[[str], None]) -> None:
    ends = time.monotonic() + plan.minutes * 60
    turn = 0
    while (left := ends - time.monotonic()) > 0:
        await asyncio.sleep(min(plan.fault_every_s, left))
        if left <= plan.fault_every_s:
            break
        name, fault = list(FAULTS.items())[turn % len(FAULTS)]
        await fault(history)
        done[name] = done.get(name, 0) + 1
        turn += 1
        on_progress(f"{left / 60:5.1f} minutes left, after {name}: {len(history.arena.running)} workers")


def _youngest(arena: Arena) -> Member:
    return arena.running[-1]


async def kill_the_youngest(history: History) -> None:
    arena = history.arena
    _youngest(arena).signal(signal.SIGKILL)
    await arena.start_worker()
    await arena.progress()
    await arena.all_ready()


async def end_the_youngest(history: History) -> None:
    arena = history.arena
    await end_in_time(_youngest(arena))
    await arena.start_worker()
    await arena.progress()
    await arena.all_ready()


FAULTS: dict[str, Fault] = {
    "kill": kill_the_youngest,
    "term": end_the_youngest,
    "restart": restart_redis,
    "cut": cut_connections,
}


async def _look(arena: Arena, samples: Samples) -> None:
    """The oldest worker and the server, again and again; a server that is away is not looked at."""
    oldest = arena.running[0].process.pid
    while True:
        for name, read in {"worker bytes": memory_bytes, "worker files": open_files, "worker threads": threads}.items():
            samples.note(name, read(oldest))
        with suppress(StateStoreError, OSError):
            memory = (await arena.ask("INFO", "memory")).decode()
            samples.note("redis bytes", float(memory.partition("used_memory:")[2].split()[0]))
            for log in LOGS:
                keys = [f"usp:{{{partition}}}:{log}" for partition in range(arena.shape.partitions)]
                samples.note(log, float(max([await arena.ask("XLEN", key) for key in keys])))
        await asyncio.sleep(LOOK_EVERY_S)


async def _read_along(history: History) -> None:
    """The judge reads before old entries are cut off."""
    while True:
        with suppress(StateStoreError, OSError):
            await history.judge.read()
        await asyncio.sleep(READ_EVERY_S)


def _trend(points: Sequence[tuple[float, float]], warm_s: float) -> dict[str, Any] | None:
    """Of what came after the warm-up."""
    late = [point for point in points if point[0] >= warm_s]
    found = trend([second for second, _ in late], [value for _, value in late])
    if found is None:
        return None
    return {**asdict(found), "per_hour": found.per_hour, "grows": found.grows(GROWTH_MAX)}


def _thinned(points: Sequence[tuple[float, float]], shown_max: int = 300) -> list[tuple[float, float]]:
    return list(points[:: max(1, len(points) // shown_max)])


def faults(figures: dict[str, Any]) -> list[str]:
    """What must hold, as far as it does not."""
    found = [f"{name} grow by more than {GROWTH_MAX:.0%}" for name in figures["growing"]]
    if (most := figures["predictions_kept_max"]) > figures["kept"] * SLACK:
        found.append(f"a log had {most:,.0f} predictions; {figures['kept']:,} are to be kept")
    return found


def table(figures: dict[str, Any]) -> str:
    """For a person."""
    lines = [f"{'after the warm-up':<18}{'mean':>16}{'an hour':>16}{'growth':>9}   95 % interval"]
    for name, found in figures["trends"].items():
        if found is None:
            lines.append(f"{name:<18}  too few samples to tell")
            continue
        interval = f"{found['low']:+.2%} to {found['high']:+.2%}"
        numbers = f"{found['mean']:>16,.0f}{found['per_hour']:>+16,.1f}{found['growth']:>+9.2%}"
        lines.append(f"{name:<18}{numbers}   {interval}")
    hurt = ", ".join(f"{count} x {name}" for name, count in figures["faults"].items()) or "nothing"
    most = figures["predictions_kept_max"]
    lines.append(f"at most {most:,.0f} predictions in a log, {figures['kept']:,} are to be kept; faults: {hurt}")
    lines.append(f"{figures['ticks_judged']:,} ticks judged: none missing, doubled or different")
    return "\n".join(lines + [f"FAULT: {fault}" for fault in faults(figures)])
