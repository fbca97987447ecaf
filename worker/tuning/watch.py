"""Looks back at a published generation after a while, and takes it back if it forecasts worse than the one before.

Both are run over the fleet's own ticks and scored on those that came after the publication: the same ticks for both, so
a market that has turned wild is not blamed on the new numbers.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from predictor_core.tuning import Comparison, WalkForward
from predictor_core.tuning.history import BIN, History
from predictor_core.tuning.runs import Runner
from predictor_core.tuning.verdict import compare
from state_store import ConfigGeneration, StateStore
from worker.tuning.past import fleet_history
from worker.tuning.search import Outcome

LEAST = 500  # ticks of all assets of a group that must have come since


@dataclass(frozen=True)
class Live:
    """How the numbers of one group have done since they were published."""

    group: str
    ticks: int
    comparison: Comparison | None  # none while there are too few ticks

    @property
    def worse(self) -> bool:
        """Clearly: the whole interval of the ratio lies above 1."""
        return self.comparison is not None and self.comparison.low > 1


def live_text(live: Live) -> str:
    """For a person."""
    group, found = live.group or "all assets", live.comparison
    if found is None:
        return f"{group}: {live.ticks} ticks since then, too few to tell"
    change = f"{100 * (1 - found.ratio):+.2f} % [{100 * (1 - found.high):+.2f}, {100 * (1 - found.low):+.2f}]"
    return f"{group}: gain since then {change} on {live.ticks} ticks{', taken back' if live.worse else ''}"


def look_back(outcomes: Sequence[Outcome], history: History, since_ns: int, runner: Runner) -> list[Live]:
    """Compares, group by group, on the ticks that arrived after a moment."""
    return [_look(outcome, history, since_ns, runner) for outcome in outcomes if outcome.judgement.adopted]


def _look(outcome: Outcome, history: History, since_ns: int, runner: Runner) -> Live:
    there = [place for place, asset in enumerate(history.assets) if asset in outcome.assets]
    objective = WalkForward(history.only(there), outcome.present, runner=runner)
    fresh = _fresh_bins(objective.history, since_ns)
    ticks = BIN * int(fresh.sum())
    if ticks < LEAST:
        return Live(outcome.group, ticks, None)
    tallies = objective.run([objective.config(outcome.judgement.params)])
    return Live(outcome.group, ticks, compare(objective, tallies, fresh))


def _fresh_bins(history: History, since_ns: int) -> np.ndarray:
    """Bins whose ticks all arrived later: [assets, bins]."""
    fresh = np.zeros((len(history.assets), -(-len(history.values) // BIN)), bool)
    for row, length, arrivals in zip(fresh, history.lengths, history.arrivals_ns.T, strict=True):
        firsts = arrivals[: length // BIN * BIN : BIN]
        row[: len(firsts)] = firsts > since_ns
    return fresh


async def watch(
    store: StateStore, outcomes: Sequence[Outcome], known: ConfigGeneration, number: int, seconds: float, runner: Runner
) -> tuple[list[Live], int | None]:
    """Waits, looks back, and publishes the values of before again if a group does worse: that generation's number."""
    since_ns = await _newest_arrival(store)
    await asyncio.sleep(seconds)
    history = await fleet_history(store, [asset for outcome in outcomes for asset in outcome.assets])
    lives = await asyncio.to_thread(look_back, outcomes, history, since_ns, runner)
    if not any(live.worse for live in lives):
        return lives, None
    back = await store.publish_config(number, known.values)
    if back is not None:
        await store.append_audit({"event": "config_generation", "generation": back, "by": "tune", "undoes": number})
    return lives, back


async def _newest_arrival(store: StateStore) -> int:
    """The newest id in any log, as nanoseconds."""
    meta = await store.read_meta()
    probes = [await store.probe(partition) for partition in range(meta.partitions)]
    return max(int(probe.last_id.partition(b"-")[0] or 0) for probe in probes) * 10**6
