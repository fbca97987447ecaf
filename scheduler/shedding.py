"""Decides how deep the graph may go when time gets short.

The ratio of smoothed latency to smoothed tick interval moves along one ladder, down at once and up one rung at a time:

    ratio      depth                        up again
    < 0.7      5                            one rung after 20 observations in a row with
    >= 0.7     3                            ratio < 0.5 and jitter < 0.3 Nyquist intervals
    >= 1.0     2
    > 1.0      1: as 2, without kernels A and B, which cost the most

Jitter is the standard deviation of the last 100 latencies. Over 0.6 Nyquist intervals it costs one rung; over 0.8, or
over 0.5 with a mean over 0.7, it takes the depth to 2. Nothing is decided by fewer than 10 observations: the first ones
after a start, with cold caches, only begin the averages. Other allowed depths make another ladder. Time comes in as an
argument.
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from scheduler.errors import BadRules, ClockWentBack

QUIET_NS = 10_000_000_000  # without an observation nothing is late
PRUNED = 1  # below the depths of the signature: fewer kernels
ALL_KERNELS, REMAINING = "ABCD", "CD"


@dataclass(frozen=True)
class SheddingRules:
    """Every threshold of the ladder."""

    depths: tuple[int, ...] = (2, 3, 5)
    smoothing: float = 0.3
    degrade_ratio: float = 0.7
    critical_ratio: float = 1.0
    recover_ratio: float = 0.5
    recover_observations: int = 20
    observations_min: int = 10
    nyquist_ns: int = 100_000_000
    jitter_window: int = 100
    jitter_violation: float = 0.8
    jitter_mean: float = 0.7
    jitter_with_mean: float = 0.5
    jitter_degrade: float = 0.6
    jitter_recover: float = 0.3
    alert_after_ns: int = 60_000_000_000

    def __post_init__(self) -> None:
        rising = bool(self.depths) and list(self.depths) == sorted(set(self.depths)) and self.depths[0] > PRUNED
        _check(rising, "depths", self.depths, f"ascending from {PRUNED + 1} on")
        _check(0 < self.smoothing <= 1, "smoothing", self.smoothing, "in (0, 1]")
        _check_rising(self, "recover_ratio", "degrade_ratio", "critical_ratio")
        _check(self.recover_ratio < self.degrade_ratio, "recover_ratio", self.recover_ratio, "below degrade_ratio")
        _check_rising(self, "jitter_recover", "jitter_degrade", "jitter_violation")
        _check(self.recover_observations >= 1, "recover_observations", self.recover_observations, "at least 1")
        _check(self.nyquist_ns > 0, "nyquist_ns (besov_nyquist_interval_ns)", self.nyquist_ns, "positive")
        _check(self.observations_min >= 2, "observations_min", self.observations_min, "at least 2")
        enough = self.observations_min <= self.jitter_window
        _check(enough, "jitter_window", self.jitter_window, f"at least observations_min = {self.observations_min}")
        _check(self.alert_after_ns >= 0, "alert_after_ns", self.alert_after_ns, "not negative")


@dataclass(frozen=True)
class Jitter:
    """The last latencies in figures, nanoseconds; `violations` counts observations above the limit since the start."""

    observations: int = 0
    mean: float = 0.0
    std: float = 0.0
    min: float = 0.0
    max: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    violations: int = 0


class Shedder:
    """Watches latency and tick interval, and holds the rung that follows from them."""

    def __init__(self, rules: SheddingRules | None = None):
        self.rules = rules or SheddingRules()
        self.ladder = (PRUNED, *self.rules.depths)
        self.latency_ns = math.nan
        self.interval_ns = math.nan
        self.violations = self._seen = 0
        self._latencies: deque[int] = deque()
        self._sum = self._sum_of_squares = 0  # of these; whole numbers, so nothing gets lost over time
        self._place = len(self.ladder) - 1
        self._healthy = 0
        self._below_since_ns: int | None = None
        self._now_ns: int | None = None

    @property
    def depth(self) -> int:
        return self.ladder[self._place]

    @property
    def kernels(self) -> str:
        """Those that take part."""
        return REMAINING if self.depth == PRUNED else ALL_KERNELS

    @property
    def ratio(self) -> float:
        """Smoothed latency over smoothed tick interval; at 1 the graph just keeps up."""
        return self.latency_ns / self.interval_ns if self._seen else 0.0

    @property
    def status(self) -> str:
        if self._place == len(self.ladder) - 1:
            return "NOMINAL"
        return "DEGRADED_CRITICAL" if self.depth <= self.rules.depths[0] else "DEGRADED"

    def observe(self, latency_ns: int, interval_ns: int, now_ns: int) -> int:
        """Takes one measured latency and the tick interval that goes with it; returns the depth to use next.

        Both are those of one asset: the latency of a micro-batch over its rounds, and the time between two ticks of an
        asset in it. A batch that holds many ticks of an asset is slow without being late.
        """
        self._advance(now_ns)
        # A feed that pauses is no licence to be slow when it comes back: the interval counts up to Nyquist's.
        interval = min(max(interval_ns, 1), self.rules.nyquist_ns)
        self.latency_ns = self._smooth(self.latency_ns, latency_ns)
        self.interval_ns = self._smooth(self.interval_ns, interval)
        self._seen += 1
        if self._seen >= self.rules.observations_min:
            self._keep(latency_ns)
            mean, std = self._spread()
            self.violations += std > self.rules.jitter_violation
            self._move(min(self._limit_of_ratio(), self._limit_of_jitter(mean, std)), std)
        self._watch(now_ns)
        return self.depth

    def alert(self, now_ns: int) -> bool:
        """True when full depth has been missing for longer than the rules allow, and ticks still come."""
        if self._below_since_ns is None or self._now_ns is None or now_ns - self._now_ns > QUIET_NS:
            return False
        return now_ns - self._below_since_ns > self.rules.alert_after_ns

    def jitter(self) -> Jitter:
        """Describes the last latencies."""
        if not self._latencies:
            return Jitter()
        latencies = np.array(self._latencies, dtype=np.float64)
        least, p50, p95, p99, most = np.percentile(latencies, (0, 50, 95, 99, 100)).tolist()
        return Jitter(len(latencies), *self._moments(), least, most, p50, p95, p99, self.violations)

    def _advance(self, now_ns: int) -> None:
        if self._now_ns is not None and now_ns < self._now_ns:
            raise ClockWentBack(f"now is {now_ns} ns, but {self._now_ns} ns has been seen; use a monotonic clock")
        self._now_ns = now_ns

    def _smooth(self, before: float, value: int) -> float:
        return float(value) if math.isnan(before) else before + self.rules.smoothing * (value - before)

    def _keep(self, latency_ns: int) -> None:
        gone = self._latencies.popleft() if len(self._latencies) == self.rules.jitter_window else 0
        self._latencies.append(latency_ns)
        self._sum += latency_ns - gone
        self._sum_of_squares += latency_ns**2 - gone**2

    def _spread(self) -> tuple[float, float]:
        """Mean and standard deviation in Nyquist intervals; 0 while there are too few latencies to tell."""
        if len(self._latencies) < self.rules.observations_min:
            return 0.0, 0.0
        mean, std = self._moments()
        return mean / self.rules.nyquist_ns, std / self.rules.nyquist_ns

    def _moments(self) -> tuple[float, float]:
        count = len(self._latencies)
        return self._sum / count, math.sqrt(count * self._sum_of_squares - self._sum**2) / count

    def _limit_of_ratio(self) -> int:
        if self.ratio >= self.rules.critical_ratio:
            return 0 if self.ratio > self.rules.critical_ratio else 1
        return self._one_below_full() if self.ratio >= self.rules.degrade_ratio else len(self.ladder) - 1

    def _limit_of_jitter(self, mean: float, std: float) -> int:
        rules = self.rules
        if std > rules.jitter_violation or (mean > rules.jitter_mean and std > rules.jitter_with_mean):
            return 1
        return self._one_below_full() if std > rules.jitter_degrade else len(self.ladder) - 1

    def _one_below_full(self) -> int:
        return max(1, len(self.ladder) - 2)

    def _move(self, limit: int, std: float) -> None:
        """Goes down to the limit at once, and up one rung after enough healthy observations."""
        healthy = self.ratio < self.rules.recover_ratio and std < self.rules.jitter_recover
        self._healthy = self._healthy + 1 if healthy else 0
        if limit < self._place:
            self._place, self._healthy = limit, 0
        elif self._healthy >= self.rules.recover_observations:
            self._place, self._healthy = min(limit, self._place + 1), 0

    def _watch(self, now_ns: int) -> None:
        if self._place == len(self.ladder) - 1:
            self._below_since_ns = None
        elif self._below_since_ns is None:
            self._below_since_ns = now_ns


def _check_rising(rules: SheddingRules, *names: str) -> None:
    values = [getattr(rules, name) for name in names]
    _check(0 < values[0] and values == sorted(values), " <= ".join(names), tuple(values), "positive and in this order")


def _check(holds: bool, name: str, found: object, wanted: str) -> None:
    if not holds:
        raise BadRules(f"{name} must be {wanted}, got {found}")
