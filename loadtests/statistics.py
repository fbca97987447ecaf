"""What is made of the numbers of several runs: medians, percentiles, ratios of pairs. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

TAILS = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}
ROUNDING = 1e-9  # of 0.999 * 1000, which is a little more than 999


def percentiles(latencies: np.ndarray, tails: Mapping[str, float] = TAILS) -> dict[str, float]:
    """The smallest value that at least this share of them does not exceed; never something between two of them."""
    if not len(latencies):
        return dict.fromkeys(tails, float("nan"))
    ranked = np.sort(latencies)
    places = {name: math.ceil(share / 100 * len(ranked) - ROUNDING) - 1 for name, share in tails.items()}
    return {name: float(ranked[place]) for name, place in places.items()}


def median(values: Sequence[float]) -> float:
    return float(np.median(values))


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of every number over runs of the same shape; of other things the first run's."""
    first = runs[0]
    merged: dict[str, Any] = {}
    for name, value in first.items():
        if isinstance(value, Mapping):
            merged[name] = medians([run[name] for run in runs])
        elif isinstance(value, float):
            merged[name] = median([run[name] for run in runs])
        else:
            merged[name] = value
    return merged


def rated(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    """Ticks per second of each run."""
    return [run["ticks_per_second"] for run in runs]


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the ratios of pairs that were measured side by side: what slows both of a pair cancels out."""
    return median([a / b for a, b in zip(over, under, strict=True)])


def rounded(value: Any, digits: int = 4) -> Any:
    """The same with every float cut to its significant digits, for files that people read."""
    if isinstance(value, Mapping):
        return {name: rounded(inner, digits) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner, digits) for inner in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
