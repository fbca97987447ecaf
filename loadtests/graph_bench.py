"""`predictor bench graph`: what the compiled graph costs, against the number of assets and the depth.

Rows lie in a table, and go through the program as a worker sends them: at most 4096 distinct assets at a time. The
naive host loop (one jitted step for each asset) takes its turn with every run, so that a neighbour slows both alike.
CPU time is of the whole process, the graph's own threads included; it suffers less from neighbours than the clock.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.results import about
from loadtests.single_lane import SingleLane
from loadtests.statistics import median, ratio
from predictor_core import PredictorConfig, Program
from predictor_core.config import DEPTHS, PRUNED

ASSETS = (1, 10, 100, 512, 1000, 10_000)
ASSETS_FULL = (*ASSETS, 100_000)
ROWS_AT_ONCE = 4096  # as the worker's `rows_max`
NAIVE_ASSETS_MAX = 100  # the loop's cost per tick does not depend on how many assets it goes round
SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long."""

    assets: Sequence[int] = ASSETS
    depths: Sequence[int] = (PRUNED, 2, 3)
    runs: int = 5
    seconds: float = 0.5  # of one run
    config: PredictorConfig = PredictorConfig()
    cache_dir: Path | None = Path(".predictor/cache")


def full_plan() -> Plan:
    """Up to 100,000 assets; depth 5 only runs under a config that has it."""
    return Plan(ASSETS_FULL, (PRUNED, *DEPTHS), config=PredictorConfig(log_sig_depth=DEPTHS[-1]))


def measure(plan: Plan, on_progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """All figures of the bench."""
    figures = about()
    program = Program(plan.config, cache_dir=plan.cache_dir)
    on_progress("compiling")
    program.compile(plan.depths)
    naive = _Naive(SingleLane(plan.config, plan.cache_dir))
    _run(naive, 0.0)
    rows = []
    for depth in plan.depths:
        for assets in plan.assets:
            rows.append(_compare(_Table(program, assets, depth), naive, plan))
            on_progress("assets {assets:>7,}  depth {depth}  {us_per_tick:8.2f} us a tick".format(**rows[-1]))
    return {
        **figures,
        "lanes": program.lanes,
        "bytes_per_row": 4 * program.words if program.dtype == np.uint32 else 8 * program.words,
        "bytes_per_record": program.record_bytes,
        "bytes_per_prediction": program.payload_bytes,
        "naive_depth": plan.config.log_sig_depth,
        "rows": rows,
    }


@dataclass(frozen=True)
class _Run:
    """What a stretch of ticks cost, per tick, in microseconds."""

    clock: float
    cpu: float


def _compare(table: "_Table", naive: "_Naive", plan: Plan) -> dict[str, Any]:
    _run(table, 0.0)
    pairs = [(_run(table, plan.seconds), _run(naive, plan.seconds / 4)) for _ in range(plan.runs)]
    ours, theirs = ([pair[k].clock for pair in pairs] for k in (0, 1))
    return {
        "assets": table.assets,
        "depth": table.depth,
        "ticks_per_second": 1e6 / median(ours),
        "us_per_tick": median(ours),
        "cpu_us_per_tick": median([pair[0].cpu for pair in pairs]),
        "naive_us_per_tick": median(theirs),
        "times_naive": ratio(theirs, ours),
    }


def _run(work: "_Table | _Naive", seconds: float) -> _Run:
    """Whole rounds until the time is over, at least one."""
    ticks, started, cpu = 0, time.perf_counter(), time.process_time()
    while not ticks or time.perf_counter() - started < seconds:
        ticks += work.round()
    clock, cpu = time.perf_counter() - started, time.process_time() - cpu
    return _Run(clock / ticks * 1e6, cpu / ticks * 1e6)


class _Table:
    """Every round, one tick of each asset."""

    def __init__(self, program: Program, assets: int, depth: int) -> None:
        self.assets, self.depth = assets, depth
        self._program, self._rows = program, program.cold(assets)
        self._walk, self._rng, self._now_ns = np.full(assets, 100.0), np.random.default_rng(0), START_NS

    def round(self) -> int:
        self._now_ns += SECOND
        self._walk += self._rng.standard_normal(self.assets)
        for first in range(0, self.assets, ROWS_AT_ONCE):
            part = slice(first, min(first + ROWS_AT_ONCE, self.assets))
            count = part.stop - first
            times = np.full(count, self._now_ns)
            self._rows[part], _ = self._program.run(
                self._rows[part], np.arange(count, dtype=np.int32), self._walk[part], times, times, depth=self.depth
            )
        return self.assets


class _Naive:
    """The same by a loop over assets."""

    def __init__(self, lane: SingleLane) -> None:
        self._lane, self._rows = lane, [lane.cold] * NAIVE_ASSETS_MAX
        self._rng, self._now_ns = np.random.default_rng(0), START_NS

    def round(self) -> int:
        self._now_ns += SECOND
        values = 100 + self._rng.standard_normal(NAIVE_ASSETS_MAX)
        for asset, value in enumerate(values):
            self._rows[asset] = self._lane.step(self._rows[asset], value, self._now_ns, self._now_ns)
        return NAIVE_ASSETS_MAX


def table(figures: dict[str, Any]) -> str:
    """For a person."""
    lines = [f"{'assets':>9}{'depth':>7}{'ticks/s':>12}{'us/tick':>10}{'CPU us':>9}{'naive us':>10}{'x naive':>9}"]
    for row in figures["rows"]:
        lines.append(
            f"{row['assets']:>9,}{row['depth']:>7}{row['ticks_per_second']:>12,.0f}{row['us_per_tick']:>10.1f}"
            f"{row['cpu_us_per_tick']:>9.1f}{row['naive_us_per_tick']:>10.0f}{row['times_naive']:>9.1f}"
        )
    return "\n".join([*lines, f"{figures['bytes_per_row']:,} bytes a row"])
