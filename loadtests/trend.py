"""Whether a series of measurements grows, and how sure that is. Pure.

Samples of a process's memory depend on those before them, so their scatter around a line says too little about its
slope. They are averaged in blocks first; the interval is Student's for a line through the blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BLOCKS = 10
STUDENT_95 = 2.306  # of 8 degrees of freedom: a line through ten points


@dataclass(frozen=True)
class Trend:
    """A line through a series: its mean, and growth from the first sample to the last, as a share of that mean."""

    mean: float
    growth: float
    low: float
    high: float
    seconds: float

    @property
    def per_hour(self) -> float:
        """The slope, in units of the series."""
        return self.growth * self.mean / self.seconds * 3600

    def grows(self, allowed: float) -> bool:
        """By more than is allowed, and not by chance."""
        return self.growth > allowed and self.low > 0


def trend(seconds: Sequence[float], values: Sequence[float]) -> Trend | None:
    """None when there are too few samples to tell."""
    if len(values) < 2 * BLOCKS:
        return None
    x = np.array([block.mean() for block in np.array_split(np.asarray(seconds, float), BLOCKS)])
    y = np.array([block.mean() for block in np.array_split(np.asarray(values, float), BLOCKS)])
    centred = x - x.mean()
    slope = centred @ y / (centred @ centred)
    residuals = y - y.mean() - slope * centred
    error = np.sqrt(residuals @ residuals / (BLOCKS - 2) / (centred @ centred))
    span = float(seconds[-1] - seconds[0])
    mean = float(y.mean())
    share = span / mean if mean else 0.0
    low, high = slope - STUDENT_95 * error, slope + STUDENT_95 * error
    return Trend(mean, float(slope * share), float(low * share), float(high * share), span)
