"""The walk-forward objective: a candidate's forecasts against those of the present configuration, fold by fold.

    value = mean over the folds of  exp mean over the assets of ln(loss / loss of the present)
            + its standard error over the folds + what it spoils of the calibration

Below 1 is better, and 1 is what the present configuration gets. A ratio has no unit, so every asset counts alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..config import PredictorConfig
from . import folds
from .history import History
from .runs import Runner, Tallies

AT_ONCE = 8  # candidates in a generation
COVERAGE, COVERAGE_SLACK, PENALTY = 0.9, 0.01, 0.5


def mean_loss(tallies: Tallies, metric: str, mask: np.ndarray) -> np.ndarray:
    """The mean loss of each trial and asset over the bins of a mask [assets, bins]: [trials, assets]."""
    sums = {"crps": tallies.crps, "rmsse": tallies.squares, "mape": tallies.shares}[metric]
    count = np.maximum((tallies.ticks * mask).sum(-1), 1)
    mean = (sums * mask).sum(-1) / count
    return np.sqrt(mean) if metric == "rmsse" else mean


METRICS = ("crps", "rmsse", "mape")


def coverage_error(tallies: Tallies, mask: np.ndarray) -> np.ndarray:
    """How far the 90 % band is from holding 90 %: [trials, assets]."""
    count = np.maximum((tallies.ticks * mask).sum(-1), 1)
    return abs((tallies.inside * mask).sum(-1) / count - COVERAGE)


def ratios(tallies: Tallies, present: Tallies, metric: str, mask: np.ndarray) -> np.ndarray:
    """Of losses, over the present configuration's: [trials, assets]. Where that has none, 1."""
    ours, theirs = mean_loss(tallies, metric, mask), mean_loss(present, metric, mask)
    return np.where(theirs > 0, ours / np.where(theirs > 0, theirs, 1.0), 1.0)


def pooled(ratios: np.ndarray) -> np.ndarray:
    """Geometric mean over the assets."""
    return np.exp(np.log(np.maximum(ratios, 1e-300)).mean(-1))


class WalkForward:
    """Scores candidates on the search part of a history. Equal histories and settings, equal `identity`."""

    at_once = AT_ONCE

    def __init__(
        self,
        history: History,
        present: PredictorConfig,
        *,
        runner: Runner | None = None,
        metric: str = "crps",
        split: folds.Split | None = None,
    ) -> None:
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {list(METRICS)}, got {metric!r}.")
        split = split or folds.Split()
        self.history, self.present, self.metric = history, present, metric
        self.runner = runner or Runner()
        self.dealt = folds.deal(history, split)
        self.identity = f"{metric} {split} {present} {history.identity()}"
        self._known: Tallies | None = None

    def __call__(self, params: Mapping[str, Any]) -> float:
        return self.many([params])[0]

    def many(self, candidates: Sequence[Mapping[str, Any]]) -> list[float]:
        """A value for each; candidates share the lanes, and their values do not depend on each other."""
        return self.values(self.run([self.config(params) for params in candidates]))

    def config(self, params: Mapping[str, Any]) -> PredictorConfig:
        """The present configuration with a candidate's numbers."""
        settings = {name: getattr(self.present, name) for name in self.present.__dataclass_fields__}
        return PredictorConfig(**{**settings, **params})

    def run(self, configs: Sequence[PredictorConfig]) -> Tallies:
        return self.runner.run(configs, self.history)

    @property
    def present_tallies(self) -> Tallies:
        """The present configuration's own scores, made once."""
        if self._known is None:
            self._known = self.run([self.present])
        return self._known

    def values(self, tallies: Tallies) -> list[float]:
        """The objective of trials that have been run."""
        masks = [self.dealt == fold for fold in range(self.dealt.max() + 1)]
        by_fold = np.stack([pooled(ratios(tallies, self.present_tallies, self.metric, mask)) for mask in masks])
        doubt = by_fold.std(0, ddof=1) / np.sqrt(len(masks)) if len(masks) > 1 else 0.0
        return [float(value) for value in by_fold.mean(0) + doubt + self._spoilt(tallies)]

    def _spoilt(self, tallies: Tallies) -> np.ndarray:
        """What is lost of the bands' promise beyond the slack, on average over the assets."""
        mask = self.dealt >= 0
        present = np.maximum(coverage_error(self.present_tallies, mask), COVERAGE_SLACK)
        return PENALTY * np.maximum(coverage_error(tallies, mask) - present, 0.0).mean(-1)
