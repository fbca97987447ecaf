"""Observe-only: what tuning would have to work with, found without changing anything.

    gradient noise = sigma_y * sqrt(2) / (2 c)          wanted: c >= 2 sigma_y
    first step     = a0 / (1 + A)^alpha * |gradient|    wanted: noise alone moves a knob by 0.02 at most

Nothing was perturbed, so no gradient is known, and none is claimed.
"""

import math
from dataclasses import dataclass

from scheduler.hotpath.checks import require
from scheduler.hotpath.engine_config import AdaptiveEngineConfig
from scheduler.hotpath.spsa import trimmed_mean
from scheduler.hotpath.telemetry import TelemetryDigest

FIRST_STEP = 0.02
WINDOWS_MIN = 2


@dataclass(frozen=True)
class Estimate:
    """What a dry run found, and what it suggests for the probe distance, the gain and the windows."""

    windows: int
    objective: float
    sigma_y: float  # Of the value of one window.
    perturbation_scale: float
    learning_rate: float
    window_factor: float  # How many times longer windows must be for the probe to stand out; 1 if they are long enough.
    gradient_known: bool = False


class Observer:
    """Groups digests of the centre into windows like those of a probe."""

    def __init__(self, config: AdaptiveEngineConfig):
        self._config = config
        self._window: list[float] = []
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    @property
    def windows(self) -> int:
        return self._count

    def observe(self, digest: TelemetryDigest) -> None:
        """Takes a digest; one that is not finite is left out."""
        if not math.isfinite(digest.objective_value) or digest.sample_count < 1:
            return
        self._window.append(digest.objective_value)
        if len(self._window) == self._config.spsa.eval_window_digests:
            self._close(trimmed_mean(self._window, self._config.spsa.trim))
            self._window.clear()

    def estimate(self) -> Estimate:
        """Suggests gains from the scatter between windows."""
        require(self._count >= WINDOWS_MIN, "windows observed", f"at least {WINDOWS_MIN}", self._count)
        config, sigma = self._config, math.sqrt(self._squares / (self._count - 1))
        largest = config.guardrails.max_delta_per_step / 2
        scale = min(max(config.perturbation_scale, 2 * sigma), largest)
        noise = sigma * math.sqrt(2) / (2 * scale)
        steepest = (1 + config.spsa.stability_a) ** config.spsa.alpha * FIRST_STEP / noise if noise else math.inf
        return Estimate(
            windows=self._count,
            objective=self._mean,
            sigma_y=sigma,
            perturbation_scale=scale,
            learning_rate=min(config.learning_rate, steepest),
            window_factor=max(1.0, (2 * sigma / scale) ** 2),
        )

    def checkpoint(self) -> dict:
        return {"window": self._window, "count": self._count, "mean": self._mean, "squares": self._squares}

    def restore(self, state: dict) -> None:
        self._window = list(state["window"])
        self._count, self._mean, self._squares = state["count"], state["mean"], state["squares"]

    def _close(self, value: float) -> None:
        """Adds one window to mean and scatter, without keeping it (Welford)."""
        self._count += 1
        before = value - self._mean
        self._mean += before / self._count
        self._squares += before * (value - self._mean)
