"""BayesianMetaOptimizer: a search that can be killed at any moment and goes on as if nothing had happened.

    optimizer = BayesianMetaOptimizer(FAST, objective, "spring", 50)
    best = optimizer.optimize()          # saves itself to .predictor/studies/spring.json

An objective is a function of a candidate. One with a method `many` and a number `at_once` is given that many candidates
together; 25 trials and 25 more after a restart are 50 trials to the last digit, whatever the number.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import checkpoint, proposals
from .proposals import Trial
from .space import TIERS, SearchSpace, check_unlocked

STUDIES = Path(".predictor/studies")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
IMPROVEMENT = 1e-4  # less does not count against the patience


class BayesianMetaOptimizer:
    """Holds a study: its search space, its trials, and where it is saved."""

    def __init__(
        self,
        search_space: Mapping[str, SearchSpace],
        objective_fn: Callable[[dict[str, Any]], float],
        study_name: str,
        max_iterations: int,
        tier: str = "fast",
        *,
        first: Sequence[Mapping[str, Any]] = (),
        seed: int = 42,
        folder: Path | str | None = STUDIES,
        watch: Callable[["BayesianMetaOptimizer"], None] | None = None,
    ) -> None:
        check_unlocked(search_space)
        if tier not in TIERS:
            raise ValueError(f"tier must be one of {list(TIERS)}, got {tier!r}.")
        if not NAME.fullmatch(study_name):
            raise ValueError(f"a study's name is 1 to 64 letters, digits or any of . _ -, got {study_name!r}.")
        if max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, got {max_iterations}.")
        for candidate in first:
            if outside := [name for name, knob in search_space.items() if candidate[name] not in knob]:
                raise ValueError(f"a first candidate lies outside the search space in {outside}.")
        self.search_space, self.objective_fn = dict(search_space), objective_fn
        self.study_name, self.max_iterations, self.tier = study_name, max_iterations, tier
        self.trials: list[Trial] = []
        self.early_stopped = False
        self.path = Path(folder) / f"{study_name}.json" if folder is not None else None
        self._first = [dict(candidate) for candidate in first]
        self._seed, self._watch = seed, watch
        self._at_once: int = getattr(objective_fn, "at_once", 1)
        self._saved = -1

    @property
    def iteration(self) -> int:
        return len(self.trials)

    @property
    def best(self) -> Trial | None:
        """The earliest of the best trials; None while there is none."""
        known = [trial for trial in self.trials if math.isfinite(trial.value)]
        return min(known, key=lambda trial: trial.value) if known else None

    def optimize(self, checkpoint_interval: int = 10, early_stopping_patience: int = 50) -> dict[str, Any]:
        """Goes on to `max_iterations` trials, or until patience is out; the best candidate.

        Saves at the start, at each improvement and every `checkpoint_interval` trials, and when it is interrupted.
        """
        if checkpoint_interval < 1 or early_stopping_patience < 1:
            raise ValueError("checkpoint_interval and early_stopping_patience must be at least 1.")
        self._save_now()
        try:
            while self.iteration < self.max_iterations and not self._patience_is_out(early_stopping_patience):
                self._next(checkpoint_interval)
        finally:
            self._save_now()
        best = self.best
        if best is None:
            raise ValueError(f"none of the {self.iteration} trials of {self.study_name!r} came to a finite value.")
        return dict(best.params)

    def save_study(self, path: str | Path) -> None:
        """Writes the study with its sum beside it."""
        checkpoint.write(Path(path), self.content())

    def content(self) -> dict[str, Any]:
        """All that a study is, as plain values."""
        trials = [[trial.params, trial.value if math.isfinite(trial.value) else None] for trial in self.trials]
        return {"study_name": self.study_name, "tier": self.tier, "search": self._search(), "trials": trials}

    def load_study(self, path: str | Path) -> None:
        """Takes over the trials of a saved study of the same name and search."""
        content = checkpoint.read(Path(path))
        if content["study_name"] != self.study_name:
            raise ValueError(f"{path} holds the study {content['study_name']!r}, not {self.study_name!r}.")
        if content["search"] != self._search():
            raise ValueError(
                f"{path} was searched with another space, seed, start or objective. Give the same data and settings, "
                "or another name to start anew."
            )
        self.trials = [Trial(params, math.inf if value is None else value) for params, value in content["trials"]]
        self._saved = self.iteration

    def importance(self) -> dict[str, float]:
        """Each knob's share in what tells good trials from others."""
        return proposals.importance(self.search_space, self.trials)

    def convergence_delta(self, last: int = 10) -> float:
        """What the last trials have added to the best."""
        values = [trial.value for trial in self.trials]
        if len(values) <= last or self.best is None:
            return 0.0
        before = min(values[:-last])
        return before - self.best.value if math.isfinite(before) else 0.0

    def _search(self) -> dict[str, Any]:
        """What must be the same for a study to go on."""
        space = json.dumps([asdict(knob) for knob in self.search_space.values()])
        return {
            "space": hashlib.sha256(space.encode()).hexdigest(),
            "knobs": list(self.search_space),
            "seed": self._seed,
            "at_once": self._at_once,
            "first": self._first,
            "objective": getattr(self.objective_fn, "identity", ""),
        }

    def _next(self, checkpoint_interval: int) -> None:
        """Finishes the generation that is under way, and saves on the way."""
        begun = self.iteration // self._at_once * self._at_once
        proposed = proposals.generation(
            self.search_space, self.trials[:begun], self._at_once, self._seed, self._first
        )
        for candidates in self._portions(proposed[self.iteration - begun : self.max_iterations - begun]):
            best, before = self.best, self.iteration
            self.trials += [Trial(*pair) for pair in zip(candidates, self._values(candidates), strict=True)]
            improved = self.best is not best
            if improved or before // checkpoint_interval < self.iteration // checkpoint_interval:
                self._save_now()
            if self._watch:
                self._watch(self)

    def _portions(self, candidates: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        return [candidates] if hasattr(self.objective_fn, "many") else [[candidate] for candidate in candidates]

    def _values(self, candidates: Sequence[dict[str, Any]]) -> list[float]:
        many: Any = getattr(self.objective_fn, "many", None)
        return [float(value) for value in (many(candidates) if many else map(self.objective_fn, candidates))]

    def _patience_is_out(self, patience: int) -> bool:
        """Asked between generations only, where an interrupted search stands as the whole one did."""
        if self.iteration % self._at_once:
            return False
        best, since = math.inf, 0
        for trial in self.trials:
            better = trial.value < best - IMPROVEMENT
            best, since = (trial.value, 0) if better else (best, since + 1)
        self.early_stopped = since >= patience
        return self.early_stopped

    def _save_now(self) -> None:
        if self.path is not None and self._saved != self.iteration:
            self.save_study(self.path)
            self._saved = self.iteration
