"""One tuning from past to verdict, for all assets together or group by group."""

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from predictor_core import PredictorConfig, PredictorError
from predictor_core.tuning import (
    TIERS,
    BayesianMetaOptimizer,
    Judgement,
    OptimizationResult,
    WalkForward,
    around,
    judge,
    start,
)
from predictor_core.tuning.history import History
from predictor_core.tuning.lock import locked
from predictor_core.tuning.proposals import optuna
from predictor_core.tuning.runs import Runner
from predictor_core.tuning.space import SHAPES
from predictor_core.tuning.study import STUDIES
from scheduler.partitions import tenant_of
from worker.errors import BadInput
from worker.exits import notice

EVERYTHING = ""  # the name of the group that holds all assets
SLUG_BYTES = 5


@dataclass(frozen=True)
class Plan:
    """What a tuning was asked for."""

    tier: str = "fast"
    name: str = "tune"
    trials: int | None = None
    metric: str = "crps"
    per: str = "pooled"  # or tenant, or asset
    resume: bool = False
    anew: bool = False
    shapes: bool = True  # whether what a running fleet cannot take may change
    folder: Path = STUDIES


@dataclass(frozen=True)
class Outcome:
    """What came of one group's search."""

    group: str
    assets: tuple[str, ...]
    study: BayesianMetaOptimizer
    result: OptimizationResult
    judgement: Judgement
    present: PredictorConfig
    seconds: float

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        judged = asdict(self.judgement)
        return {
            "group": self.group,
            "assets": list(self.assets),
            **self.result.model_dump(),
            **judged,
            "present": {name: getattr(self.present, name) for name in self.study.search_space},
            "importance": self.study.importance(),
            "study": str(self.study.path),
            "seconds": self.seconds,
        }


def tune(
    history: History, present_of: Callable[[str], PredictorConfig], plan: Plan, cache_dir: Path | None
) -> list[Outcome]:
    """Searches and judges group by group, from what each has now. Ctrl-C leaves studies that `resume` goes on with."""
    optuna()  # says at once if it is not there
    runner = Runner(cache_dir)
    return [
        _tune_group(group, history.only(places), present_of(group), plan, runner)
        for group, places in _groups(history, plan)
    ]


def _groups(history: History, plan: Plan) -> list[tuple[str, list[int]]]:
    named: dict[str, Callable[[str], str]] = {"pooled": lambda _: EVERYTHING, "tenant": tenant_of, "asset": str}
    groups: dict[str, list[int]] = {}
    for place, asset in enumerate(history.assets):
        groups.setdefault(named[plan.per](asset), []).append(place)
    return list(groups.items())


def _tune_group(group: str, history: History, present: PredictorConfig, plan: Plan, runner: Runner) -> Outcome:
    begin = time.perf_counter()
    space, trials = TIERS[plan.tier]
    near = around({name: knob for name, knob in space.items() if plan.shapes or name not in SHAPES}, present)
    progress = Progress(group)
    try:
        objective = WalkForward(history, present, runner=runner, metric=plan.metric)
        study = BayesianMetaOptimizer(
            near,
            objective,
            _study_name(plan, group),
            plan.trials or trials,
            plan.tier,
            first=start(near, present),
            folder=plan.folder,
            watch=progress,
        )
        assert study.path is not None
        with locked(study.path):
            _begin(study, plan, present)
            judgement = judge(objective, _search(study, progress))
    except BlockingIOError:
        raise BadInput(f"the study {_study_name(plan, group)!r} is in the hands of another process") from None
    except PredictorError:
        raise
    except (ValueError, FileNotFoundError) as error:
        raise BadInput(str(error)) from None
    except OSError as error:
        raise BadInput(f"a study cannot be kept in {plan.folder}: {error.strerror}") from None
    adopted = judgement.params if judgement.adopted else {}
    return Outcome(
        group, history.assets, study, OptimizationResult.of(study, adopted), judgement, present,
        time.perf_counter() - begin,
    )  # fmt: skip


def _begin(study: BayesianMetaOptimizer, plan: Plan, present: PredictorConfig) -> None:
    path = study.path
    assert path is not None
    if plan.resume and path.exists():
        study.load_study(path)
        notice(f"{study.study_name}: goes on after {study.iteration} trials")
    elif path.exists() and not plan.anew:
        raise BadInput(f"there is a study at {path} already: --resume goes on with it, --anew writes over it")


def _search(study: BayesianMetaOptimizer, progress: "Progress") -> dict[str, Any]:
    try:
        with progress:
            return study.optimize()
    except KeyboardInterrupt:
        notice(f"stopped after {study.iteration} trials, kept in {study.path}: --resume goes on")
        raise


def _study_name(plan: Plan, group: str) -> str:
    """A file's name: what in a group's name is no letter is told apart by its sum."""
    if group == EVERYTHING:
        return f"{plan.name}-{plan.tier}"
    plain = "".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in group)[:20]
    return f"{plan.name}-{plan.tier}-{plain}-{hashlib.sha256(group.encode()).hexdigest()[: 2 * SLUG_BYTES]}"


class Progress:
    """A bar with the best value, the rate and the time left; a line now and then where there is no terminal."""

    EVERY_S = 5.0

    def __init__(self, group: str) -> None:
        self._title = group or "tuning"
        self._bar: Any = None
        self._task: Any = None
        self._first: tuple[float, int] | None = None
        self._told = 0.0

    def __enter__(self) -> "Progress":
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._told = time.monotonic()
        console = Console(file=sys.stderr)
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[told]}"), console=console)
            self._task = self._bar.add_task(self._title, total=None, told="compiling, or loading what is compiled")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, study: BayesianMetaOptimizer) -> None:
        now, done = time.monotonic(), study.iteration
        if self._first is None:
            self._first = now, done
        since, before = self._first
        rate = (done - before) / (now - since) if now > since else 0.0
        told = progress_text(study.best.value if study.best else None, rate, study.max_iterations - done)
        if self._bar:
            self._bar.update(self._task, completed=done, total=study.max_iterations, told=told)
        elif now - self._told >= self.EVERY_S or done == study.max_iterations:
            self._told = now
            notice(f"{self._title}: {done}/{study.max_iterations} trials, {told}")


def progress_text(best: float | None, rate: float, left: int) -> str:
    value = "no value yet" if best is None else f"best {best:.5f}"
    return value if rate <= 0 else f"{value}, {rate:.1f} trials/s, {left / rate:.0f} s left"


def taken(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """The numbers to take over, by group; groups whose numbers stay are not in it."""
    return {outcome.group: outcome.judgement.params for outcome in outcomes if outcome.judgement.adopted}
