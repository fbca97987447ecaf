"""Simultaneous perturbation: two measurements give a gradient, whatever the number of knobs.

    a_k = a0 / (k + 1 + A)^alpha             gain
    c_k = c0 / (k + 1)^gamma                 probe distance
    g_i = (y+ - y-) / (u+_i - u-_i)          u+ and u- are what was really in force
    step_i = -a_k * g_i

Gains stop to fall at k_floor, because the optimum moves. States advance when a proposal was accepted, never before.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scheduler.hotpath.checks import require, require_count, require_positive
from scheduler.hotpath.knobs import Vec
from scheduler.hotpath.random_signs import signs

DEAD_PROBE = 1e-9  # A smaller displacement measures nothing.


@dataclass(frozen=True)
class SpsaConfig:
    """The schedule of gains and the windows of measurement."""

    eval_window_digests: int = 5
    eval_window_us: int = 500_000
    settle_time_us: int = 10_000
    alpha: float = 0.602
    gamma: float = 0.101
    stability_a: float = 10.0
    k_floor: int | None = 20
    aggregation: Literal["trimmed_mean", "median", "mean"] = "trimmed_mean"
    trim: float = 0.10
    weight_by_samples: bool = False

    def __post_init__(self) -> None:
        require_count(eval_window_digests=self.eval_window_digests)
        require_positive(eval_window_us=self.eval_window_us, alpha=self.alpha, gamma=self.gamma)
        require(self.settle_time_us >= 0, "settle_time_us", "not negative", self.settle_time_us)
        good = math.isfinite(self.stability_a) and self.stability_a >= 0
        require(good, "stability_a", "finite and not negative", self.stability_a)
        require(self.k_floor is None or self.k_floor >= 0, "k_floor", "not negative", self.k_floor)
        require(self.aggregation in ("trimmed_mean", "median", "mean"), "aggregation", "known", self.aggregation)
        require(0 <= self.trim < 1, "trim", "in [0, 1)", self.trim)


@dataclass(frozen=True)
class Ready:
    """Nothing is being measured."""


@dataclass(frozen=True)
class WaitingPlus:
    """One side of the centre is being measured."""

    perturbation_id: int
    delta: Vec
    displacement: Vec
    accumulated: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class WaitingMinus:
    """The other side of the centre is being measured."""

    perturbation_id: int
    delta: Vec
    displacement: Vec
    y_plus: float
    variance_plus: float
    accumulated: tuple[tuple[float, int], ...] = ()


SpsaState = Ready | WaitingPlus | WaitingMinus


class Spsa:
    """The optimiser: signs, gains, windows and gradients. It knows no configuration and no clock."""

    def __init__(
        self,
        seed: int = 42,
        num_params: int = 1,
        learning_rate: float = 0.1,
        perturbation_scale: float = 0.01,
        config: SpsaConfig | None = None,
    ):
        require_count(num_params=num_params)
        require_positive(learning_rate=learning_rate, perturbation_scale=perturbation_scale)
        self.seed, self.num_params = seed, num_params
        self.config = config or SpsaConfig()
        self.iteration = 0
        self.state: SpsaState = Ready()
        self._a0, self._c0 = learning_rate, perturbation_scale

    def learning_rate(self, k: int) -> float:
        return self._a0 / (self._floored(k) + 1 + self.config.stability_a) ** self.config.alpha

    def perturbation_scale(self, k: int) -> float:
        return self._c0 / (self._floored(k) + 1) ** self.config.gamma

    def generate_perturbation(self) -> Vec:
        """The perturbation of this iteration; asking again gives the same."""
        scale = self.perturbation_scale(self.iteration)
        return tuple(sign * scale for sign in signs(self.seed, self.iteration, self.num_params))

    def start_plus_perturbation(self, delta: Vec, displacement: Vec | None = None) -> None:
        """Opens the first window; `displacement` is the way from minus to plus that is really in force."""
        moved = tuple(2 * change for change in delta) if displacement is None else displacement
        self.state = WaitingPlus(self.iteration, delta, moved)

    def record_objective(self, value: float, weight: int = 1) -> None:
        """Adds a measurement to the open window; without one, or when it is full, nothing happens."""
        if isinstance(self.state, Ready) or self.has_enough_samples():
            return
        accumulated = (*self.state.accumulated, (value, weight))
        match self.state:
            case WaitingPlus(perturbation_id, delta, displacement):
                self.state = WaitingPlus(perturbation_id, delta, displacement, accumulated)
            case WaitingMinus(perturbation_id, delta, displacement, y_plus, variance):
                self.state = WaitingMinus(perturbation_id, delta, displacement, y_plus, variance, accumulated)

    def has_enough_samples(self) -> bool:
        enough = self.config.eval_window_digests
        return not isinstance(self.state, Ready) and len(self.state.accumulated) >= enough

    def estimate(self) -> tuple[Vec, Vec]:
        """The gradient and the unclipped step of a finished pair, without leaving it."""
        assert isinstance(self.state, WaitingMinus)
        difference = self.state.y_plus - self._window_value(self.state)
        gradient = tuple(difference / moved if abs(moved) >= DEAD_PROBE else 0.0 for moved in self.state.displacement)
        gain = self.learning_rate(self.iteration)
        return gradient, tuple(-gain * slope for slope in gradient)

    def centre(self) -> tuple[float, float, float]:
        """Of a finished pair: the objective at the centre, and the variances of both window means."""
        assert isinstance(self.state, WaitingMinus)
        objective = (self.state.y_plus + self._window_value(self.state)) / 2
        return objective, self.state.variance_plus, variance_of_mean(self.state.accumulated)

    def complete_eval_window(self) -> tuple[Vec, Vec] | None:
        """Closes the window: after plus comes minus; after minus come gradient and step, and the next iteration."""
        match self.state:
            case WaitingPlus(perturbation_id, delta, displacement, accumulated):
                y_plus = self._window_value(self.state)
                variance = variance_of_mean(accumulated)
                self.state = WaitingMinus(perturbation_id, delta, displacement, y_plus, variance)
            case WaitingMinus():
                estimate = self.estimate()
                self.iteration += 1
                self.state = Ready()
                return estimate
        return None

    def reset(self) -> None:
        """Throws the samples away; the iteration, and with it the signs, stays."""
        self.state = Ready()

    def _floored(self, k: int) -> int:
        return k if self.config.k_floor is None else min(k, self.config.k_floor)

    def _window_value(self, state: WaitingPlus | WaitingMinus) -> float:
        values = [value for value, _ in state.accumulated]
        weights = [weight if self.config.weight_by_samples else 1 for _, weight in state.accumulated]
        trim = {"trimmed_mean": self.config.trim, "median": 0.999, "mean": 0.0}[self.config.aggregation]
        return trimmed_mean(values, trim, weights)


def trimmed_mean(values: Sequence[float], trim: float = 0.10, weights: Sequence[int] | None = None) -> float:
    """The mean without the outermost share at each end; at least one or two in the middle remain."""
    require(bool(values), "values of a window", "at least one", len(values))
    require(all(map(math.isfinite, values)), "values of a window", "finite", values)
    pairs = sorted(zip(values, weights or [1] * len(values), strict=True))
    cut = min(math.ceil(trim * len(pairs) - 1e-9), (len(pairs) - 1) // 2)
    kept = pairs[cut : len(pairs) - cut]
    return math.fsum(value * weight for value, weight in kept) / math.fsum(weight for _, weight in kept)


def variance_of_mean(samples: Sequence[tuple[float, int]]) -> float:
    """How uncertain the mean of a window is; 0 when a single sample cannot tell."""
    values = [value for value, _ in samples]
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)
