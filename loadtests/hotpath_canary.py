"""The canary under load: is what harms forecasts kept away from everyone, and what improves them taken over?

    python -m loadtests.hotpath_canary [--json] [--rate R] [--minutes M]

    1 harmful   the fleet runs with good numbers, the candidate is far off: it must not become everyone's
    2 better    the fleet runs with numbers far off, the candidate are the good ones: taken over, or honestly kept out
    3 equal     the candidate hardly differs: it must not become everyone's on noise

What was taken over is watched to the end. One fleet of 16 partitions under an open load, rounds of seconds instead of
minutes. Exits 1 if 1 or 3 was promoted, or 2 was and then taken back.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loadtests.results import about
from loadtests.rig import Rig, Shape
from loadtests.statistics import rounded
from state_store import RedisStateStore
from state_store.hotpath.store import HotpathStore
from worker.hotpath.operator import give
from worker.hotpath.order import Order
from worker.hotpath.view import canary
from worker.publish import publish_numbers
from worker.settings import Settings, load

OUT = Path(".predictor/hotpath-canary")
HOTPATH = {
    "poll_s": 0.1, "digest_s": 0.5, "settle_s": 0.3, "lease_ms": 4000, "samples_min": 100, "utilisation_max": 1.0,
    "canary_settle_s": 1.0, "canary_round_s": 3.0, "canary_scored_min": 500, "p99_limit_ms": 60_000,
}  # fmt: skip
GOOD = {"volatility_alpha": 0.1, "sinkhorn_epsilon_0": 0.1}
TRIALS: dict[str, tuple[dict[str, float], dict[str, float]]] = {  # everyone's numbers, and the candidate
    "harmful": (GOOD, {"sinkhorn_epsilon_0": 1.0, "volatility_alpha": 0.3}),
    "better": ({"sinkhorn_epsilon_0": 1.0, "volatility_alpha": 0.3}, GOOD),
    "equal": (GOOD, {"sinkhorn_epsilon_0": 0.101}),
}
LOOK_S = 0.25
READY_S = 120.0


async def run(settings: Settings, minutes: float, say: Callable[[str], None]) -> dict[str, Any]:
    """All trials, one after the other."""
    tuner = HotpathStore(settings.redis.url)
    numbers = RedisStateStore(settings.redis.url)
    try:
        await _measured(tuner)
        found = {}
        for name, (everyones, candidate) in TRIALS.items():
            await publish_numbers(numbers, settings, everyones, "", "loadtest", name)
            began = time.monotonic()
            last = await _trial(settings, tuner, f"{name}-{began:.0f}", candidate, 60 * minutes)
            found[name] = {**last, "seconds": time.monotonic() - began}
            say(f"{name}: {last['kind']} after {last['rounds']} rounds, {found[name]['seconds']:.0f} s; {last['told']}")
    finally:
        await tuner.close()
        await numbers.close()
    return found


async def _trial(
    settings: Settings, tuner: HotpathStore, name: str, candidate: dict[str, float], seconds: float
) -> dict[str, Any]:
    asked = {"candidate": candidate, "knobs": [], "share": 8, "rotations": 2}
    await give(settings, Order(name, "canary-start", "loadtest", "load test", None, asked), 30.0)
    deadline = time.monotonic() + seconds
    promoted: dict[str, Any] = {}
    while (facts := canary(await tuner.show()))["trying"] or facts["watching"]:
        promoted = facts["last"] if facts["watching"] else promoted
        if time.monotonic() > deadline:
            await give(settings, Order(f"{name}-end", "canary-abort", "loadtest", "took too long", None, {}), 30.0)
        await asyncio.sleep(LOOK_S)
    await asyncio.sleep(1.0)  # until what was decided is published
    return promoted | {"watch": facts["last"]} if promoted else facts["last"]


async def _measured(tuner: HotpathStore) -> None:
    """Waits until somebody leads and has measured something."""
    async with asyncio.timeout(READY_S):
        while not json.loads((await tuner.show()).report).get("measured"):
            await asyncio.sleep(LOOK_S)


def measure(rate: float, minutes: float, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole run, on a fleet of its own."""
    hotpath = {**HOTPATH, "directory": OUT / "audit"}
    own = {f"USP_HOTPATH__{name.upper()}": str(value) for name, value in hotpath.items()}
    with Rig(Shape(partitions=16, assets=512, settings=tuple(own.items()))) as rig:
        settings = load({"redis": {"url": rig.url}, "hotpath": hotpath})
        with rig._producer(rate, 60 * (3 * minutes + 5)):
            return {"rate": rate, **asyncio.run(run(settings, minutes, say))}


def verdict(figures: dict[str, Any]) -> list[str]:
    """What was not as it must be; nothing if all was."""
    promoted = [name for name in ("harmful", "equal") if figures[name]["kind"] == "better"]
    faults = [f"the {name} candidate was promoted" for name in promoted]
    if figures["better"]["watch"] and figures["better"]["watch"]["kind"] == "taken_back":
        faults.append("the better candidate was promoted and taken back")
    return faults


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.hotpath_canary", description="The canary under load.")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--rate", type=float, default=4000.0, help="ticks per second")
    parser.add_argument("--minutes", type=float, default=8.0, help="longest time for a trial")
    asked = parser.parse_args(given)
    figures = about() | measure(asked.rate, asked.minutes, (lambda _: None) if asked.json else print)
    faults = verdict(figures)
    print(json.dumps(rounded(figures | {"faults": faults}), indent=None if asked.json else 1))
    return bool(faults)


if __name__ == "__main__":
    raise SystemExit(main())
