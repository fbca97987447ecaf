"""The tuner under load: does a bad start recover, and is a harmful change taken back?

    python -m loadtests.hotpath [--json] [--out DIR] [--rate R] [--minutes M]

    1 dry run   with the knobs far off: it measures the noise, and the cost and loss that are the ruler from then on
    2 sweep     hand-tuned: the best of a grid of knob settings, in turns, while nothing is tuned
    3 recover   the knobs are put far off again and tuned
    4 compare   the centre that was found against the hand-tuned setting, in turns
    5 harm      the centre is put far off again behind the tuner's back; it has to go back to its baseline

One fleet, one open load, one ruler, cycles of seconds instead of minutes. What is compared is measured in turns, since
a shared machine is not as fast in one minute as in the next. Writes a page with a plot of objective, knobs and
generations, and the figures as JSON. Exits 1 if something was not reached, 2 if the machine was too busy to tell.
"""

import argparse
import asyncio
import html
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests import plots
from loadtests.results import about
from loadtests.rig import Rig, Shape
from loadtests.statistics import median, rounded
from state_store.hotpath.store import HotpathStore
from worker.hotpath.knobs import REGISTRY
from worker.hotpath.operator import give
from worker.hotpath.order import Order
from worker.hotpath.view import status
from worker.settings import Settings, load

OUT = Path(".predictor/hotpath-loadtest")
WINDOWS_MS = (0.0, 2.0, 5.0, 10.0, 20.0, 40.0)
BAD = {"window_ms": 90.0, "ticks_max": 4096, "read_ahead": 8192}
HOTPATH = {
    "poll_s": 0.1, "digest_s": 0.5, "digests_per_side": 8, "settle_s": 0.3, "patience_s": 20, "lease_ms": 4000,
    "samples_min": 100, "preset": "balanced", "hourly_budget": 1000, "learning_rate": 0.12, "utilisation_max": 0.9,
    "perturbation_scale": 0.05, "promote": True,
    "p95_target_ms": 20, "p99_target_ms": 40, "lag_target_s": 0.05,
}  # fmt: skip
LOOK_S = 0.25
WINDOWS_EACH = 6  # of measurement, per setting and turn
SWEEPS = 3
PAIRS = 8  # of the comparison
INSIDE = 1  # pairs left out at each end: what lies between holds the true median 93 times in 100
WITHIN = 1.10
DRY_RUN_SIDES = 6
DRY_RUNS_MAX = 6
GAIN_MIN = 0.08  # a noisier machine lets the tuner walk too slowly for a run of minutes: waits for a calmer moment
PATIENCE_S = 120.0


@dataclass
class Trace:
    """What was seen, window by window."""

    began_s: float = field(default_factory=time.monotonic)
    windows: list[dict[str, Any]] = field(default_factory=list)
    marks: list[dict[str, Any]] = field(default_factory=list)
    _last: Any = None

    def add(self, facts: dict[str, Any]) -> bool:
        """True if this is a window that was not seen before."""
        measured = facts["measured"]
        key = json.dumps(measured, sort_keys=True)
        if not measured or key == self._last:
            return False
        self._last = key
        knobs = {knob["knob"]: (knob["centre"], knob["live"]) for knob in facts["knobs"]}
        row = {"at_s": self.now_s(), "objective": measured["objective"], "phase": facts["phase"], "knobs": knobs}
        row |= {"generation": facts["generation"], "iteration": facts["iteration"], "terms": measured["terms"]}
        row |= {"utilisation": measured["utilisation"]}
        self.windows.append(row)
        return True

    def mark(self, what: str) -> None:
        self.marks.append({"at_s": self.now_s(), "what": what})

    def now_s(self) -> float:
        return time.monotonic() - self.began_s


class Unmeasurable(Exception):
    """The machine was too busy with other things for any verdict."""


class Operator:
    """Gives orders and looks, as a person would with `predictor hotpath`."""

    def __init__(self, settings: Settings, say) -> None:
        self.settings, self._say = settings, say
        self.trace = Trace()
        self._store = HotpathStore(settings.redis.url)
        self._orders = 0

    async def order(self, name: str, **args: Any) -> None:
        self._orders += 1
        order = Order(f"load-{self._orders}", name, "loadtest", "load test", None, args)
        answer = await give(self.settings, order, 30.0)
        self.trace.mark(f"{name} {args.get('knob', '')} {args.get('value', '')}".strip())
        self._say(f"{self.trace.now_s():6.0f} s  {name}: {answer['told']}")

    async def look(self) -> tuple[dict[str, Any], bool]:
        facts = status(self.settings, await self._store.show())
        return facts, self.trace.add(facts)

    async def hold(self, natives: dict[str, float], windows: int) -> list[float]:
        """Objectives of some windows at a fixed setting, after one that is not counted."""
        for name, value in natives.items():
            await self.order("pin", knob=name, value=float(value), jump=True)
        return await self.objectives(windows)

    async def objectives(self, windows: int) -> list[float]:
        """Of the windows in which the machine left room to breathe, as the tuner itself takes them."""
        generation = (await self.look())[0]["generation"]
        found: list[float] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(found) < windows + 1 and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_S)
            facts, new = await self.look()
            if new and facts["generation"] == generation and facts["phase"] == "centre" and _calm(facts["measured"]):
                found.append(facts["measured"]["objective"])
        if len(found) <= windows / 2:
            raise Unmeasurable(f"no window of {PATIENCE_S:g} s left the machine room to breathe: use a calmer one")
        return found[1:]

    async def release(self) -> None:
        for knob in REGISTRY.names:
            await self.order("unpin", knob=knob)

    async def until(self, holds, seconds: float) -> dict[str, Any] | None:
        """The first look at which it holds; None when it did not in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            facts, _ = await self.look()
            if holds(facts):
                return facts
            await asyncio.sleep(LOOK_S)
        return None

    async def close(self) -> None:
        await self._store.close()


async def run(settings: Settings, minutes: float, say) -> dict[str, Any]:
    """The five parts, in turn."""
    operator = Operator(settings, say)
    try:
        await operator.until(lambda facts: facts["measured"], PATIENCE_S)
        await _dry_run(operator)
        hand, swept = await _sweep(operator)
        say(f"hand-tuned: window {hand['window_ms']:g} ms")
        bad, started, recovered_s = await _recover(operator, swept[str(hand["window_ms"])], minutes)
        compared = await _compare(operator, hand)
        told = "found {found:.3f}, hand-tuned {hand:.3f}: ratio {ratio:.3f}, likely {ratio_low:.3f} to {ratio_high:.3f}"
        say(told.format(**compared))
        harmed = await _harm(operator, bad)
    finally:
        await operator.close()
    return {
        "hand_tuned": hand, "sweep": swept, "bad": BAD, "objective_bad": started, "recovered_s": recovered_s,
        **compared, **harmed, "trace": operator.trace.windows, "marks": operator.trace.marks,
    }  # fmt: skip


async def _dry_run(operator: Operator) -> None:
    """Turns tuning on where the knobs are far off, and pauses it at once."""
    await operator.hold(BAD, WINDOWS_EACH)
    await operator.release()
    for _ in range(DRY_RUNS_MAX):
        await operator.order("dry-run-on")
        await operator.until(lambda facts: facts["dry_run"].get("sides", 0) < DRY_RUN_SIDES, PATIENCE_S)  # a new one
        facts = await operator.until(lambda facts: facts["dry_run"].get("sides", 0) >= DRY_RUN_SIDES, PATIENCE_S)
        if facts and facts["dry_run"]["learning_rate"] >= GAIN_MIN:
            break
    await operator.order("dry-run-off")
    await operator.order("pause")


async def _sweep(operator: Operator) -> tuple[dict[str, float], dict[str, float]]:
    """The best window of the grid, and the objective of each."""
    found: dict[float, list[float]] = {window_ms: [] for window_ms in WINDOWS_MS}
    for turn in range(SWEEPS):
        for window_ms in WINDOWS_MS if turn % 2 == 0 else reversed(WINDOWS_MS):
            found[window_ms].append(median(await operator.hold({"window_ms": window_ms}, WINDOWS_EACH)))
    swept = {str(window_ms): median(each) for window_ms, each in found.items()}
    best = min(WINDOWS_MS, key=lambda window_ms: swept[str(window_ms)])
    return {**BAD, "window_ms": best}, swept


async def _recover(operator: Operator, goal: float, minutes: float) -> tuple[int, float, float | None]:
    """Which generation the bad start was, how bad, and after how long the centre was as good as by hand for a while."""
    started = median(await operator.hold(BAD, WINDOWS_EACH))
    bad = (await operator.look())[0]["generation"]
    await operator.release()
    await operator.order("resume")
    began_s = operator.trace.now_s()
    good = await operator.until(lambda _: _recent(operator.trace, began_s) < WITHIN * goal, 60 * minutes)
    return bad, started, None if good is None else operator.trace.now_s() - began_s


def _calm(measured: dict[str, Any]) -> bool:
    return measured["utilisation"] <= HOTPATH["utilisation_max"]


def _recent(trace: Trace, since_s: float, windows: int = 24) -> float:
    """The objective around the centre lately; infinite while little was seen."""
    rows = [row["objective"] for row in trace.windows if row["at_s"] > since_s and _calm(row)][-windows:]
    return median(rows) if len(rows) == windows else float("inf")


async def _compare(operator: Operator, hand: dict[str, float]) -> dict[str, Any]:
    """Found and hand-tuned in turns, each first every other time, so that what slows both cancels out."""
    await operator.order("pause")
    facts, _ = await operator.look()
    found = {knob["knob"]: knob["centre"] for knob in facts["knobs"]}
    sides: dict[str, list[float]] = {"found": [], "hand": []}
    for pair in range(PAIRS):
        turns = [("found", found), ("hand", hand)]
        for name, natives in turns if pair % 2 == 0 else reversed(turns):
            sides[name].append(median(await operator.hold(natives, WINDOWS_EACH)))
    await operator.hold(found, 1)
    await operator.release()
    ratios = sorted(a / b for a, b in zip(sides["found"], sides["hand"], strict=True))
    return {
        "found_knobs": found, "found": median(sides["found"]), "hand": median(sides["hand"]),
        "ratio": median(ratios), "ratio_low": ratios[INSIDE], "ratio_high": ratios[-1 - INSIDE], "pairs": PAIRS,
    }  # fmt: skip


async def _harm(operator: Operator, bad: int) -> dict[str, Any]:
    """Lets it tune for a few cycles, then puts the centre far off as a mistaken operator would."""
    await operator.order("set-baseline")
    await operator.order("resume")
    before, _ = await operator.look()
    k = before["iteration"]
    await operator.until(lambda facts: facts["iteration"] >= k + 3, PATIENCE_S)
    rollbacks = await _rollbacks(operator)
    await operator.order("rollback", to=bad)
    began_s = operator.trace.now_s()
    deadline = time.monotonic() + PATIENCE_S
    while await _rollbacks(operator) == rollbacks and time.monotonic() < deadline:
        await operator.look()
        await asyncio.sleep(LOOK_S)
    back = await _rollbacks(operator) > rollbacks
    operator.trace.mark("rolled back" if back else "not rolled back")
    seconds = operator.trace.now_s() - began_s
    facts, _ = await operator.look()
    return {
        "harm_rolled_back": back,
        "harm_seconds": seconds,
        "knobs_after": {knob["knob"]: knob["centre"] for knob in facts["knobs"]},
        "baseline_after": {knob["knob"]: knob["baseline"] for knob in facts["knobs"]},
    }


async def _rollbacks(operator: Operator) -> int:
    """Automatic ones."""
    shown = await operator._store.show(10_000)
    told = [json.loads(event) for _, event in shown.recent]
    return sum(event["event_type"] == "rollback" and event["actor"] == "engine" for event in told)


def page(figures: dict[str, Any]) -> str:
    """Objective, knobs and generations over time, as one HTML page."""
    rows, marks = figures["trace"], figures["marks"]
    goal = figures["hand"]
    span = [rows[0]["at_s"], rows[-1]["at_s"]]
    objective = {
        "objective": [(row["at_s"], row["objective"]) for row in rows],
        "hand-tuned": [(at, goal) for at in span],
    }
    knobs = {
        knob.name: [(row["at_s"], knob.to_unit(row["knobs"][knob.name][0])) for row in rows] for knob in REGISTRY.knobs
    }
    generations = {"generation": [(row["at_s"], float(row["generation"])) for row in rows]}
    drawn = [
        plots.lines("Objective", "seconds", "J", objective),
        plots.lines("Centre of each knob, as a share of its range", "seconds", "share", knobs),
        plots.lines("Generation", "seconds", "number", generations),
    ]
    told = "".join(f"<li>{mark['at_s']:.0f} s: {html.escape(mark['what'])}</li>" for mark in marks)
    return f"<!doctype html><meta charset='utf-8'><title>Tuner under load</title>{''.join(drawn)}<ol>{told}</ol>\n"


def measure(rate: float, minutes: float, out: Path, say) -> dict[str, Any]:
    """The whole run, on a fleet of its own."""
    hotpath = {**HOTPATH, "directory": out / "audit"}
    own = {f"USP_HOTPATH__{name.upper()}": str(value) for name, value in hotpath.items()}
    with Rig(Shape(partitions=8, assets=512, settings=tuple(own.items()))) as rig:
        settings = load({"redis": {"url": rig.url}, "hotpath": hotpath})
        with rig._producer(rate, 60 * (minutes + 10)):
            return {"rate": rate, **asyncio.run(run(settings, minutes, say))}


def verdict(figures: dict[str, Any]) -> list[str]:
    """What was not reached; nothing if all was."""
    faults = []
    if figures["ratio"] > WITHIN:
        faults.append(f"the centre found is {figures['ratio']:.2f} times the hand-tuned objective")
    if figures["objective_bad"] < 1.5 * figures["hand"]:
        faults.append("the start was not bad")
    if not figures["harm_rolled_back"]:
        faults.append("the harmful change was not taken back")
    return faults


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.hotpath", description="The tuner under load.")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--rate", type=float, default=1500.0, help="ticks per second")
    parser.add_argument("--minutes", type=float, default=8.0, help="longest time for the recovery")
    asked = parser.parse_args(given)
    try:
        figures = about() | measure(asked.rate, asked.minutes, asked.out, (lambda _: None) if asked.json else print)
    except Unmeasurable as why:
        print(why, file=sys.stderr)
        return 2
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "figures.json").write_text(json.dumps(rounded(figures), indent=1) + "\n")
    (asked.out / "index.html").write_text(page(figures))
    faults = verdict(figures)
    short = {name: value for name, value in figures.items() if name not in ("trace", "marks")}
    print(json.dumps(rounded(short | {"faults": faults}), indent=None if asked.json else 1))
    return bool(faults)


if __name__ == "__main__":
    raise SystemExit(main())
