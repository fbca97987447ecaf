"""A black swan: the ticks of every asset come five times as fast, then twenty times, then as before.

    python -m loadtests.black_swan [--json] [--quick] [--crisis SECONDS] [--assets N]

One worker at depth 5, real processes. The gap between two ticks of an asset is 100 ms, 20 ms, 5 ms and 100 ms again; so
many assets that at 5 ms the graph alone needs longer for a tick of each, at full depth, than there is time. What is
told comes from the predictions, which say when they were due, when they could be read and at which depth they were
made; only how busy the graph was is from the worker's metrics: that share is the ratio by which depth is shed, once
every micro-batch holds all assets. Writes black_swan.json, and black_swan.svg: gap, backlog, depth and latency.
"""

import argparse
import json
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from loadtests import plots
from loadtests.results import FOLDER, about, save
from loadtests.rig import Played, Rig, Shape
from loadtests.schedule import Phase, Schedule
from loadtests.statistics import percentiles

GAPS_MS = (100.0, 20.0, 5.0, 100.0)
NAMES = ("calm", "fast", "crisis", "calm again")
BEYOND = 1.1  # computing time of one tick of every asset at full depth, over the shortest gap
ALERT_AFTER_S = 60.0  # as deploy/prometheus/rules.yml has it
FULL_DEPTH = 5
CAUGHT_UP_MS = 1000.0  # backlog is gone when the gap's latency is back below this
BIN_S = 0.25
ASSETS_MIN = 64


@dataclass(frozen=True)
class Plan:
    """How long each gap lasts, and how many assets there are; None: as many as it takes."""

    seconds: tuple[float, ...] = (10.0, 20.0, 20.0, 60.0)
    assets: int | None = None
    warm_s: float = 2.0
    full_s: float = 5.0
    shape: Shape = Shape(depth=FULL_DEPTH, partitions=8)


QUICK = Plan(seconds=(1.0, 0.5, 0.5, 2.0), warm_s=1.0, full_s=1.0)


def measure(plan: Plan, on_progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Runs the phases over one fleet."""
    figures = about()
    assets = plan.assets or _assets(plan, on_progress)
    phases = [Phase(1000 * assets / gap, seconds) for gap, seconds in zip(GAPS_MS, plan.seconds, strict=True)]
    port = free_port()
    with Rig(replace(with_metrics(plan.shape, port), assets=assets)) as rig, Watch(port) as watch:
        on_progress(f"{assets} assets; up to {phases[2].rate:,.0f} ticks/s for {phases[2].seconds:.0f} s")
        rig.play(Phase(phases[0].rate, plan.warm_s))  # a worker's first ticks of all take longer
        played = rig.play(*phases)
    schedule = Schedule(played.start_ns, phases)
    return {
        **figures,
        "assets": assets,
        "partitions": plan.shape.partitions,
        "sent": played.sent,
        "missing": played.sent - len(played.times_ns),
        "producer_late_ms": played.late_ms,
        "phases": [_phase(k, schedule, played, watch) for k in range(len(phases))],
        **judged(schedule, played),
        "course": course(schedule, played),
    }


def _assets(plan: Plan, on_progress: Callable[[str], None]) -> int:
    """So many that the shortest gap is too short for the graph."""
    port = free_port()
    with Rig(with_metrics(plan.shape, port)) as rig, Watch(port) as watch:
        capacity = rig.saturate(plan.warm_s, plan.full_s)["ticks_per_second"]
    seconds = watch.seconds_per_tick()
    on_progress(f"at full load one worker takes {capacity:,.0f} ticks/s, the graph {1e6 * seconds:.1f} us for each")
    return max(ASSETS_MIN, round(BEYOND * min(GAPS_MS) / 1000 / seconds))


def _phase(number: int, schedule: Schedule, played: Played, watch: "Watch") -> dict[str, Any]:
    """One gap: latencies of what was due in it, depths, and how busy the graph was."""
    start_ns = schedule.start_ns + sum(round(phase.seconds * 1e9) for phase in schedule.phases[:number])
    end_ns = start_ns + round(schedule.phases[number].seconds * 1e9)
    of_it = (played.times_ns >= start_ns) & (played.times_ns < end_ns)
    found, counts = np.unique(played.depths[of_it], return_counts=True)
    return {
        "phase": NAMES[number],
        "gap_ms": GAPS_MS[number],
        "rate": schedule.phases[number].rate,
        "latency_ms": percentiles((played.read_ns - played.times_ns)[of_it] / 1e6),
        "depths": {str(depth): float(n) / of_it.sum() for depth, n in zip(found, counts, strict=True)},
        "graph_busy": watch.busy(start_ns, end_ns),
    }


def judged(schedule: Schedule, played: Played) -> dict[str, Any]:
    """Depths in turn, the largest backlog, how long it took to come back, and whether the alert was due."""
    order = np.argsort(played.read_ns, kind="stable")
    read_ns, depths = played.read_ns[order], played.depths[order]
    at_once = np.flatnonzero(np.diff(read_ns, prepend=-1))  # one answer to the reader holds several partitions
    steps = np.minimum.reduceat(depths, at_once)
    ladder = steps[np.flatnonzero(np.diff(steps.astype(int), prepend=-1))]
    calm_ns = int(schedule.starts_ns[3])
    late = np.flatnonzero((played.times_ns >= calm_ns) & (played.read_ns - played.times_ns > CAUGHT_UP_MS * 1e6))
    back = np.flatnonzero(depths < FULL_DEPTH)
    full_ns = int(read_ns[back[-1]]) if len(back) else calm_ns
    below_s = _longest_below(read_ns, depths)
    backlog = _backlog(schedule, played, np.sort(read_ns))
    return {
        "ladder": ladder.tolist(),
        "backlog_max": int(backlog.max()),
        "backlog_max_over_crisis": float(backlog.max() / schedule.phases[2].ticks),
        "caught_up_s": float((played.read_ns[late].max() - calm_ns) / 1e9) if len(late) else 0.0,
        "full_depth_again_s": max(0.0, (full_ns - calm_ns) / 1e9),
        "below_full_depth_s": below_s,
        "alert_due": below_s > ALERT_AFTER_S,
    }


def _longest_below(read_ns: np.ndarray, depths: np.ndarray) -> float:
    """Seconds of the longest stretch without full depth."""
    longest, since = 0, None
    for at_ns, below in zip(read_ns.tolist(), (depths < FULL_DEPTH).tolist(), strict=True):
        since = (at_ns if since is None else since) if below else None
        longest = max(longest, at_ns - since if since is not None else 0)
    return longest / 1e9


def _backlog(schedule: Schedule, played: Played, read_ns: np.ndarray) -> np.ndarray:
    """Ticks due and not read, each time that predictions were read."""
    due = np.searchsorted(np.sort(played.times_ns), read_ns, "right")
    return np.maximum(due - np.arange(1, len(read_ns) + 1), 0)


def course(schedule: Schedule, played: Played) -> list[dict[str, float]]:
    """Gap, backlog, depth and latency in steps of a quarter of a second, for the plot."""
    order = np.argsort(played.read_ns, kind="stable")
    read_ns, latency_ms = played.read_ns[order], ((played.read_ns - played.times_ns) / 1e6)[order]
    backlog = _backlog(schedule, played, read_ns)
    bins = ((read_ns - schedule.start_ns) / 1e9 / BIN_S).astype(int)
    points = []
    for number in np.unique(bins):
        inside = bins == number
        points.append(
            {
                "s": round(float(number * BIN_S), 1),
                "gap_ms": _gap_ms(schedule, number * BIN_S),
                "backlog": float(backlog[inside].max()),
                "depth": float(played.depths[order][inside].min()),
                "latency_ms": float(latency_ms[inside].max()),
            }
        )
    return points


def _gap_ms(schedule: Schedule, second: float) -> float:
    ends_s = np.cumsum([phase.seconds for phase in schedule.phases])
    return GAPS_MS[min(int(np.searchsorted(ends_s, second, "right")), len(GAPS_MS) - 1)]


class Watch:
    """Looks at the worker's metrics four times a second: seconds of computing, and ticks computed."""

    EVERY_S = 0.25
    NAMES = ('predictor_stage_seconds_sum{stage="compute"}', "predictor_batch_ticks_sum")

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"
        self._rows: list[tuple[int, float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Watch":
        self._rows.append(self._look())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._rows.append(self._look())

    def busy(self, start_ns: int, end_ns: int) -> float:
        """The share of this time in which the graph computed."""
        rows = [row for row in self._rows if start_ns <= row[0] <= end_ns]
        if len(rows) < 2:
            return float("nan")
        return (rows[-1][1] - rows[0][1]) / ((rows[-1][0] - rows[0][0]) / 1e9)

    def seconds_per_tick(self) -> float:
        """Of computing, all along."""
        (_, seconds0, ticks0), (_, seconds1, ticks1) = self._rows[0], self._rows[-1]
        return (seconds1 - seconds0) / (ticks1 - ticks0)

    def _run(self) -> None:
        while not self._ended.wait(self.EVERY_S):
            self._rows.append(self._look())

    def _look(self) -> tuple[int, float, float]:
        with urllib.request.urlopen(self._url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return (time.time_ns(), *(float(values[name]) for name in self.NAMES))  # type: ignore[return-value]


def faults(figures: dict[str, Any]) -> list[str]:
    """What must hold on any machine, as far as it does not."""
    found = []
    if figures["missing"]:
        found.append(f"{figures['missing']} ticks have no prediction")
    if figures["ladder"][-1] != FULL_DEPTH:
        found.append(f"the run ended at depth {figures['ladder'][-1]}, not {FULL_DEPTH}")
    if figures["phases"][0]["depths"].get(str(FULL_DEPTH), 0.0) < 0.9:
        found.append("depth was given up while all was calm")
    return found


def table(figures: dict[str, Any]) -> str:
    """For a person."""
    lines = [f"{figures['assets']} assets, one worker, {figures['sent']:,} ticks, {figures['missing']} lost"]
    lines.append(f"{'':<12}{'gap':>7}{'ticks/s':>10}{'busy':>8}{'p50':>9}{'p95':>9}{'p99':>9} ms  depths")
    for phase in figures["phases"]:
        tails = "".join(f"{phase['latency_ms'][tail]:>9.1f}" for tail in ("p50", "p95", "p99"))
        depths = ", ".join(f"{depth}: {share:.0%}" for depth, share in phase["depths"].items())
        head = f"{phase['phase']:<12}{phase['gap_ms']:>4.0f} ms{phase['rate']:>10,.0f}{phase['graph_busy']:>8.0%}"
        lines.append(f"{head}{tails}     {depths}")
    lines.append(f"depths in turn (1: as 2, without kernels A and B): {_in_turn(figures['ladder'])}")
    share = figures["backlog_max_over_crisis"]
    lines.append(f"largest backlog: {figures['backlog_max']:,} ticks, {share:.0%} of those of the crisis")
    caught_up, full = figures["caught_up_s"], figures["full_depth_again_s"]
    lines.append(f"caught up {caught_up:.1f} s after the crisis, back at full depth {full:.1f} s after it")
    alert = "due" if figures["alert_due"] else "not due"
    lines.append(f"below full depth for {figures['below_full_depth_s']:.1f} s at most: the alert was {alert}")
    return "\n".join(lines + [f"FAULT: {fault}" for fault in faults(figures)])


def _in_turn(ladder: list[int], shown_max: int = 12) -> str:
    shown: list[Any] = ladder
    if len(ladder) > shown_max:
        shown = [*ladder[: shown_max - 3], f"... ({len(ladder) - shown_max + 1} more) ...", *ladder[-2:]]
    return " -> ".join(map(str, shown))


def picture(figures: dict[str, Any]) -> str:
    """Gap, backlog, depth and latency under each other, over the same seconds."""
    rows = figures["course"]
    panels = {
        "gap between two ticks of an asset, ms": "gap_ms",
        "ticks due and not predicted": "backlog",
        "depth of the signature": "depth",
        "latency, ms": "latency_ms",
    }
    drawn = {title: [(row["s"], row[name]) for row in rows] for title, name in panels.items()}
    return plots.stacked("A black swan", "seconds", drawn)


def with_metrics(shape: Shape, port: int) -> Shape:
    """The worker tells its metrics at this port."""
    return replace(shape, settings=(*shape.settings, ("USP_WORKER__HTTP_PORT", str(port))))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.black_swan", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--quick", action="store_true", help="short phases: shows that it works")
    parser.add_argument("--crisis", type=float, metavar="SECONDS", help="how long the shortest gap lasts")
    parser.add_argument("--assets", type=int, help="default: so many that one worker cannot take the crisis")
    parser.add_argument("--results", type=Path, default=FOLDER, metavar="DIR")
    asked = parser.parse_args(words)
    plan = QUICK if asked.quick else Plan()
    if asked.crisis:
        plan = replace(plan, seconds=(*plan.seconds[:2], asked.crisis, plan.seconds[3]))
    figures = measure(replace(plan, assets=asked.assets), lambda line: print(line, file=sys.stderr, flush=True))
    save("black_swan", figures, asked.results)
    (asked.results / "black_swan.svg").write_text(picture(figures))
    print(json.dumps(figures) if asked.json else table(figures))
    return 1 if faults(figures) else 0


if __name__ == "__main__":
    sys.exit(main())
