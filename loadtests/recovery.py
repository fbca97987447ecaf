"""`predictor bench recovery`: how long a fleet stands still when something of it ends.

* takeover: from SIGKILL of a worker to the first commit by another one, in the first and in the last of its partitions
* ending: from SIGTERM, with work in hand and more waiting, to exit 0
* restart: from the moment at which Redis serves again to a commit in every partition, by the same workers
"""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from loadtests.arena import Arena, Fault, History, Shape, until
from loadtests.chaos import end_in_time, open_arena
from loadtests.judge import Reference
from loadtests.results import about
from state_store.logs import Looking
from worker.settings import load

LOOK_EVERY_S = 0.005
BURST = 10_000
SPREAD_S = 2.0


@dataclass(frozen=True)
class Plan:
    """How often, and on what fleet."""

    takeovers: int = 50
    endings: int = 20
    restarts: int = 3
    down_s: float = 10.0
    shape: Shape = Shape(partitions=16, workers=3, lease_ms=5000, assets=96, rate=500.0)
    cache_dir: Path = Path(".predictor/cache")
    seed: int = 1


def measure(plan: Plan, on_progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """All figures of the bench; the calm reference judges every tick of it too."""
    figures = about()
    first: list[float] = []
    last: list[float] = []
    endings: list[float] = []
    restarts: list[float] = []

    async def take_over(history: History) -> None:
        for number in range(plan.takeovers):
            times = await _take_over(history)
            first.append(min(times))
            last.append(max(times))
            on_progress(f"takeover {number + 1}: first partition {first[-1]:.2f} s, last {last[-1]:.2f} s")

    async def end(history: History) -> None:
        for _ in range(plan.endings):
            endings.append(await _end(history))
        on_progress(f"SIGTERM to exit 0: {max(endings, default=0.0):.2f} s at worst")

    async def restart(history: History) -> None:
        for _ in range(plan.restarts):
            restarts.append(await _restart(history.arena, plan.down_s))
            on_progress(f"after {plan.down_s:.0f} s without Redis: {restarts[-1]:.2f} s to the last partition's commit")

    judged = asyncio.run(_play(plan, [take_over, end, restart]))
    return {
        **figures,
        "workers": plan.shape.workers,
        "partitions": plan.shape.partitions,
        "lease_s": plan.shape.lease_ms / 1000,
        "ticks_judged": judged,
        "takeover_s": {"first_partition": _spread(first), "last_partition": _spread(last)},
        "sigterm_to_exit_s": _spread(endings),
        "redis_down_s": plan.down_s,
        "redis_restart_s": _spread(restarts),
    }


def table(figures: dict[str, Any]) -> str:
    """For a person."""
    rows = {
        f"takeover after SIGKILL, first partition (lease {figures['lease_s']:.0f} s)": "first_partition",
        "takeover after SIGKILL, last partition": "last_partition",
    }
    spreads = {name: figures["takeover_s"][key] for name, key in rows.items()}
    spreads["SIGTERM to exit 0"] = figures["sigterm_to_exit_s"]
    spreads[f"all partitions go on after {figures['redis_down_s']:.0f} s without Redis"] = figures["redis_restart_s"]
    lines = [f"{'seconds':<58}{'median':>8}{'worst':>8}{'n':>5}"]
    lines += [f"{name:<58}{s['median']:>8.2f}{s['worst']:>8.2f}{s['n']:>5}" for name, s in spreads.items()]
    return "\n".join([*lines, f"{figures['ticks_judged']:,} ticks judged: none missing, doubled or different"])


async def _play(plan: Plan, faults: list[Fault]) -> int:
    reference = Reference(load({"worker": {"cache_dir": str(plan.cache_dir)}}))
    async with open_arena(plan.shape, reference, plan.cache_dir) as arena:
        return await arena.play("bench", faults, Random(plan.seed))


async def _take_over(history: History) -> list[float]:
    """For each partition of a worker that is killed: seconds to the first commit by another."""
    arena = history.arena
    await _settled(arena)
    await asyncio.sleep(history.random.random() * SPREAD_S)  # anywhere in the life of a lease
    victim = await arena.owner(history.random)
    held = [probe.partition for probe in await arena.probes() if probe.owner == victim.name]
    victim.signal(signal.SIGKILL)
    killed = time.monotonic()
    await arena.start_worker()
    taken: dict[int, float] = {}
    async with Looking(arena.server.url) as looking:

        async def all_taken() -> bool:
            for partition in held:
                owner, attempts = await looking.ask("HMGET", f"usp:{{{partition}}}:control", "owner", "attempts")
                if owner not in (b"", victim.name.encode()) and attempts == b"0":  # set to 0 by a commit only
                    taken.setdefault(partition, time.monotonic() - killed)
            return len(taken) == len(held)

        await until(all_taken, f"a takeover from {victim.name}", every_s=LOOK_EVERY_S)
    return list(taken.values())


async def _end(history: History) -> float:
    arena = history.arena
    await _settled(arena)
    member = await arena.owner(history.random)
    history.feed.burst(BURST)
    await asyncio.sleep(history.random.random() * 0.5)
    await arena.start_worker()
    return await end_in_time(member)


async def _restart(arena: Arena, down_s: float) -> float:
    await arena.all_serve()
    await arena.end_server(kill=True)
    await asyncio.sleep(down_s)
    await arena.restart_server()
    started = time.monotonic()
    await arena.progress()
    seconds = time.monotonic() - started
    await arena.all_serve()
    return seconds


async def _settled(arena: Arena) -> None:
    """Waits until as many workers as there should be hold something, and nothing much waits."""

    async def settled() -> bool:
        arena.check_alive()
        probes = await arena.probes()
        owners = {probe.owner for probe in probes if probe.lease_left_ms}
        return len(owners & {member.name for member in arena.running}) >= arena.shape.workers

    await until(settled, "enough workers with partitions")
    await arena.caught_up()


def _spread(seconds: Sequence[float]) -> dict[str, Any]:
    if not seconds:
        return {"n": 0, "median": float("nan"), "worst": float("nan")}
    ordered = sorted(seconds)
    return {"n": len(ordered), "median": ordered[len(ordered) // 2], "worst": ordered[-1], "all": list(seconds)}
