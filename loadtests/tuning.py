"""What tuning costs and what it gains: python -m loadtests.tuning [--speed | --families | --knobs] [--json]

--speed      50 trials on 8 assets x 5,000 ticks, against the same trials one at a time
--families   eight series of each synthetic process: tuned against default on ticks that the tuning never saw
--knobs      what each knob of the search does alone to each process, at the ends and the middle of its range
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from predictor_core import FunctionalPredictor, PredictorConfig
from predictor_core.tuning.history import History, regular
from predictor_core.tuning.objective import WalkForward
from predictor_core.tuning.runs import Runner
from predictor_core.tuning.space import DEEP, TIERS, around, start
from predictor_core.tuning.study import BayesianMetaOptimizer
from predictor_core.tuning.verdict import Judgement, judge

from .accuracy import crps, table
from .processes import GENERATORS

CACHE = Path(".predictor/cache")
ASSETS, TICKS, SEED = 8, 5000, 23
MIXED = ("fbm_0.2", "ar2", "heartbeat", "regimes", "bounce", "garch_t", "daily_cycle", "mackey_glass")
LONG = [name for name in GENERATORS if name != "short_season"]  # it has 600 ticks, too few to tune on


def series(names: tuple[str, ...], ticks: int) -> History:
    """A series of each name."""

    def made(place: int, name: str) -> np.ndarray:
        return GENERATORS[name](ticks, np.random.default_rng([SEED, place])).levels

    return regular({f"{name}/{place}": made(place, name) for place, name in enumerate(names)})


def tuned(history: History, runner: Runner, tier: str = "fast") -> tuple[BayesianMetaOptimizer, WalkForward, Judgement]:
    """A search with the product's own settings, and its verdict."""
    present, (space, trials) = PredictorConfig(), TIERS[tier]
    objective = WalkForward(history, present, runner=runner)
    near = around(space, present)
    with tempfile.TemporaryDirectory() as folder:
        optimizer = BayesianMetaOptimizer(
            near, objective, "loadtest", trials, tier, first=start(near, present), folder=folder
        )
        best = optimizer.optimize()
    return optimizer, objective, judge(objective, best)


def speed(ticks: int) -> dict[str, Any]:
    """Seconds of 50 trials, compilation apart; and of the same number one at a time, from a few of them."""
    history, runner, present = series(MIXED, ticks), Runner(CACHE), PredictorConfig()
    begin = time.perf_counter()
    runner.run([present], history.only([0]))
    compiled = time.perf_counter() - begin
    begin = time.perf_counter()
    optimizer, objective, _ = tuned(history, runner)
    together = time.perf_counter() - begin
    begin = time.perf_counter()
    for trial in optimizer.trials[:5]:
        objective(trial.params)
    one = (time.perf_counter() - begin) / 5
    return {
        "trials": optimizer.iteration,
        "assets": ASSETS,
        "ticks": ticks,
        "threads": runner.threads,
        "compile_or_load_s": compiled,
        "search_and_verdict_s": together,
        "one_at_a_time_s": one * optimizer.iteration,
        "speed_up": one * optimizer.iteration / together,
        "by_replay_s": _by_replay(history) * optimizer.iteration,
    }


def _by_replay(history: History) -> float:
    """Seconds of one trial as a user of the library would write it: replay, then score."""
    predictor = FunctionalPredictor(PredictorConfig(), cache_dir=CACHE)
    predictor.replay(predictor.init_states(1), history.values[:10, :1].T)
    begin = time.perf_counter()
    _, results = predictor.replay(predictor.init_states(len(history.assets)), history.values.T)
    for levels, quantiles in zip(history.values.T, results.quantiles, strict=True):
        crps(np.concatenate([np.full((1, quantiles.shape[1]), np.nan), quantiles[:-1]]), levels)
    return time.perf_counter() - begin


def families(ticks: int, names: list[str], tier: str) -> dict[str, dict[str, Any]]:
    """Gains in per cent on held-back ticks, with their intervals; nought where the guard kept the default."""
    runner, rows = Runner(CACHE), {}
    for name in names:
        begin = time.perf_counter()
        optimizer, _, verdict = tuned(series((name,) * ASSETS, ticks), runner, tier)
        seen, held = verdict.validation, verdict.held_back
        rows[name] = {
            "adopted": verdict.adopted,
            "trials": optimizer.iteration,
            "validation": [100 * (1 - end) for end in (seen.ratio, seen.high, seen.low)],
            "held_back": [100 * (1 - end) for end in (held.ratio, held.high, held.low)],
            "params": verdict.params,
            "seconds": time.perf_counter() - begin,
        }
        print(name, _cells(rows[name]), file=sys.stderr, flush=True)
    return rows


def _cells(row: dict[str, Any]) -> list[str]:
    def shown(gain: list[float]) -> str:
        return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*gain)

    numbers = ", ".join(f"{name} {value:.4g}" for name, value in row["params"].items())
    return ["yes" if row["adopted"] else "no", shown(row["validation"]), shown(row["held_back"]), numbers]


def knobs(ticks: int) -> dict[str, dict[str, float]]:
    """The change of the CRPS in per cent, one knob at one value."""
    history, runner = series(tuple(LONG), ticks), Runner(CACHE)
    steps = [(knob, value) for knob in DEEP.values() for value in _values(knob)]
    configs = [PredictorConfig(**{knob.name: value}) for knob, value in steps]
    present, *others = runner.run([PredictorConfig(), *configs], history).crps[:, :, 5:].sum(-1)
    return {
        f"{knob.name} {value:.4g}": dict(zip(LONG, 100 * (loss / present - 1), strict=True))
        for (knob, value), loss in zip(steps, others, strict=True)
    }


def _values(knob: Any) -> list[Any]:
    if choices := knob.choices():
        return list(choices)
    low, high = map(knob.scaled, knob.range)
    values = [knob.unscaled(place) for place in np.linspace(low, high, 5)]
    return [round(value) if knob.param_type == "int" else knob.nearest(value) for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--speed", action="store_true")
    what.add_argument("--families", nargs="*", metavar="NAME", help="only these, or all")
    what.add_argument("--knobs", action="store_true")
    parser.add_argument("--ticks", type=int, default=TICKS)
    parser.add_argument("--tier", choices=list(TIERS), default="fast")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.families is not None:
        result = families(arguments.ticks, arguments.families or LONG, arguments.tier)
        titles = ["eight series of", "taken", "validation, gain %", "held back, gain %", "numbers"]
        text = table(titles, [[name, *_cells(row)] for name, row in result.items()])
    elif arguments.knobs:
        result = knobs(arguments.ticks)
        rows = [[name, *(f"{change:+.2f}" for change in row.values())] for name, row in result.items()]
        text = table(["change of CRPS, %", *LONG], rows)
    else:
        result = speed(arguments.ticks)
        text = "\n".join(f"{value:>10.4g}  {name}" for name, value in result.items())
    print(json.dumps(result) if arguments.json else text)


if __name__ == "__main__":
    main()
