"""Tuning: a search over the predictor's numbers that can be killed at any moment, and ends in a safe change or in none.

    space -> study -> objective (runs, folds) -> verdict -> result

Optuna is imported when a candidate is asked for, and nowhere else.
"""

from ..errors import IntegrityError
from .background import AsyncMetaOptimizer
from .errors import ConfigMutationError, MissingExtra, TuningError
from .folds import Split
from .history import History, history_of
from .mutation import MutationLimits, roll_back
from .objective import WalkForward
from .result import OptimizationResult
from .rollback import LossWatch, Watch
from .space import DEEP, FAST, TIERS, SearchSpace, around, start
from .study import BayesianMetaOptimizer
from .verdict import Comparison, Judgement, judge

__all__ = [
    "DEEP",
    "FAST",
    "TIERS",
    "AsyncMetaOptimizer",
    "BayesianMetaOptimizer",
    "Comparison",
    "ConfigMutationError",
    "History",
    "IntegrityError",
    "Judgement",
    "LossWatch",
    "MissingExtra",
    "MutationLimits",
    "OptimizationResult",
    "SearchSpace",
    "Split",
    "TuningError",
    "Watch",
    "WalkForward",
    "around",
    "history_of",
    "judge",
    "roll_back",
    "start",
]
