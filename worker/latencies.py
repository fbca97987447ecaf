"""Latencies as counts in narrow bins: percentiles of any number of them in a few kilobytes."""

import math

import numpy as np

LOWEST_MS = 0.01
RATIO = 1.02  # a percentile is right to two per cent
BINS = 1024


class Latencies:
    """Counts of latencies in milliseconds."""

    def __init__(self) -> None:
        self._counts = np.zeros(BINS, np.int64)

    def add(self, milliseconds: float) -> None:
        place = math.log(max(milliseconds, LOWEST_MS) / LOWEST_MS) / math.log(RATIO)
        self._counts[min(BINS - 1, int(place))] += 1

    def percentiles(self) -> dict[str, float]:
        """p50, p95 and p99; NaN where nothing was counted."""
        return {f"p{percent}": self._percentile(percent) for percent in (50, 95, 99)}

    def _percentile(self, percent: float) -> float:
        total = self._counts.sum()
        if not total:
            return math.nan
        place = int(np.searchsorted(np.cumsum(self._counts), total * percent / 100))
        return round(LOWEST_MS * RATIO ** (place + 0.5), 3)
