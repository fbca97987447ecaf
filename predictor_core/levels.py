"""The quantile levels that every law inside the predictor is carried at, whatever its border asks for."""

from statistics import NormalDist

import numpy as np

LEVELS = np.array([0.01, 0.025, *(0.05 * np.arange(1, 20)), 0.975, 0.99])
LOW, MIDDLE, HIGH = 2, 11, 20  # 5, 50, 95 %


def _student(level: float) -> float:
    """Quantile of Student's t with 4 degrees of freedom at unit variance, in closed form."""
    spread = 4 * level * (1 - level)
    tail = np.cos(np.arccos(np.sqrt(spread)) / 3) / np.sqrt(spread) - 1
    return float(np.sign(level - 0.5) * np.sqrt(2 * max(tail, 0.0)))


NORMAL = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
STUDENT = np.array([_student(level) for level in LEVELS])
