"""Proposes candidates by Optuna's TPE, so that what comes next depends on the trials before and on nothing else.

A generation of candidates is drawn from the generations before it, whole ones only; within it those drawn already count
as running. Each draw has a sampler of its own, seeded by its number. So a search that was cut anywhere and taken up
again proposes to the last digit what it would have proposed, and no sampler is ever stored.
"""

import importlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from .errors import MissingExtra
from .space import SearchSpace

START_UP = 10  # trials drawn blindly


@dataclass(frozen=True)
class Trial:
    """A candidate and what it came to; a value that is not finite failed."""

    params: dict[str, Any]
    value: float


def optuna() -> ModuleType:
    """Optuna, or one line on how to get it."""
    try:
        module = importlib.import_module("optuna")
    except ImportError:
        raise MissingExtra(
            "tuning needs Optuna, which is not installed: pip install 'universal-predictor[tune]'"
        ) from None
    module.logging.set_verbosity(module.logging.WARNING)
    return module


def generation(
    space: Mapping[str, SearchSpace],
    history: Sequence[Trial],
    count: int,
    seed: int,
    first: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """The next `count` candidates after a history of whole generations; those of `first` come first."""
    module, proposed = optuna(), []
    distributions = {name: _distribution(module, knob) for name, knob in space.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", module.exceptions.ExperimentalWarning)
        study = module.create_study(direction="minimize")
        study.add_trials([_past(module, space, distributions, trial) for trial in history])
        for number in range(len(history), len(history) + count):
            study.sampler = _sampler(module, seed, number)
            if number < len(first):
                study.enqueue_trial(_drawn(space, distributions, first[number]))
            asked = study.ask(distributions)
            proposed.append({name: _value(knob, asked.params[name]) for name, knob in space.items()})
    return proposed


def importance(space: Mapping[str, SearchSpace], history: Sequence[Trial]) -> dict[str, float]:
    """The share of each knob in telling the best trials from the others (PED-ANOVA); empty while there are too few."""
    module = optuna()
    known = [trial for trial in history if math.isfinite(trial.value)]
    distributions = {name: _distribution(module, knob) for name, knob in space.items()}
    varied = {name for name in space if len({repr(trial.params[name]) for trial in known}) > 1}
    if len(known) < 2 * START_UP or len(varied) < 2 or len({trial.value for trial in known}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = module.create_study(direction="minimize")
        study.add_trials([_past(module, space, distributions, trial) for trial in known])
        evaluator = module.importance.PedAnovaImportanceEvaluator()
        shares = module.importance.get_param_importances(study, evaluator=evaluator, params=sorted(varied))
    return {name: float(shares.get(name, 0.0)) for name in space}


def _sampler(module: ModuleType, seed: int, number: int) -> Any:
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    return module.samplers.TPESampler(
        n_startup_trials=START_UP,
        multivariate=True,
        constant_liar=True,
        seed=own,
    )


def _distribution(module: ModuleType, knob: SearchSpace) -> Any:
    made, choices = module.distributions, knob.choices()
    if choices:
        return made.CategoricalDistribution(choices)
    low, high = knob.range
    if knob.param_type == "int":
        return made.IntDistribution(low, high)
    if knob.param_type == "log_complement":
        return made.FloatDistribution(1 - high, 1 - low, log=True)
    return made.FloatDistribution(low, high, log=knob.param_type == "log_uniform")


def _value(knob: SearchSpace, drawn: Any) -> Any:
    """What a draw means; what is complemented stays inside its range to the last digit."""
    if knob.param_type != "log_complement":
        return drawn
    return min(max(1 - drawn, knob.range[0]), knob.range[1])


def _drawn(space: Mapping[str, SearchSpace], distributions: Mapping[str, Any], params: Mapping[str, Any]) -> dict:
    def drawn(name: str) -> Any:
        if space[name].param_type != "log_complement":
            return params[name]
        return min(max(1 - params[name], distributions[name].low), distributions[name].high)

    return {name: drawn(name) for name in space}


def _past(module: ModuleType, space: Mapping[str, SearchSpace], distributions: Mapping, trial: Trial) -> Any:
    known = math.isfinite(trial.value)
    return module.trial.create_trial(
        state=module.trial.TrialState.COMPLETE if known else module.trial.TrialState.FAIL,
        params=_drawn(space, distributions, trial.params),
        distributions=dict(distributions),
        value=trial.value if known else None,
    )
