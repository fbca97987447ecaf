"""The safety envelope of every change: how far, how fast, how often.

A magnitude, bound, budget or flip count violates strictly above its limit; the rate is refused once the count reaches
its limit, the interval strictly below it.
"""

import math
from collections import deque
from dataclasses import dataclass

from scheduler.hotpath.checks import require, require_count, require_positive
from scheduler.hotpath.errors import DeltaTooLarge, NotFinite, OutOfBounds, RateLimitExceeded, UnknownParameter
from scheduler.hotpath.knobs import Vec

SECOND_US = 1_000_000
SLACK = 1e-12  # Sums of decimal fractions may pass a limit by rounding alone.


@dataclass(frozen=True)
class Guardrails:
    """Limits of one optimiser; shares are of a knob's whole range. The default is the balanced preset."""

    max_delta_per_step: float = 0.10
    max_updates_per_second: float = 10.0
    min_interval_us: int = 100_000
    direction_flip_limit: int = 3
    cooldown_after_flip_us: int = 30_000_000
    max_cumulative_delta_per_minute: float = 0.50
    regression_count_limit: int = 5
    bounds: tuple[tuple[float, float], ...] | None = None
    max_cumulative_delta_per_hour: float | None = None

    def __post_init__(self) -> None:
        require_positive(
            max_delta_per_step=self.max_delta_per_step,
            max_updates_per_second=self.max_updates_per_second,
            min_interval_us=self.min_interval_us,
            cooldown_after_flip_us=self.cooldown_after_flip_us,
            max_cumulative_delta_per_minute=self.max_cumulative_delta_per_minute,
        )
        if self.max_cumulative_delta_per_hour is not None:
            require_positive(max_cumulative_delta_per_hour=self.max_cumulative_delta_per_hour)
        require_count(
            direction_flip_limit=self.direction_flip_limit, regression_count_limit=self.regression_count_limit
        )
        require(self.max_delta_per_step <= 1, "max_delta_per_step", "at most 1", self.max_delta_per_step)
        for low, high in self.bounds or ():
            require(math.isfinite(low) and math.isfinite(high) and low < high, "bounds", "low < high", (low, high))

    @classmethod
    def preset_conservative(cls) -> "Guardrails":
        return cls(0.05, 2.0, 500_000, 2, 60_000_000, 0.25, 3)

    @classmethod
    def preset_balanced(cls) -> "Guardrails":
        return cls()

    @classmethod
    def preset_aggressive(cls) -> "Guardrails":
        return cls(0.20, 20.0, 50_000, 5, 10_000_000, 1.00, 8)


def check_shape(delta: Vec, n: int) -> None:
    """Refuses a delta of another length or with a number that is none."""
    if len(delta) != n:
        raise UnknownParameter(length=len(delta), expected=n)
    for index, change in enumerate(delta):
        if not math.isfinite(change):
            raise NotFinite(param_id=index, delta=change)


def check_moves(delta: Vec, centre: Vec, max_deltas: Vec, bounds: tuple[tuple[float, float], ...] | None) -> None:
    """Refuses a step that is too large or leaves the bounds; the first knob that does is named."""
    for index, change in enumerate(delta):
        if abs(change) > max_deltas[index]:
            raise DeltaTooLarge(param_id=index, delta=change, max=max_deltas[index])
        if bounds is None:
            continue
        (low, high), value = bounds[index], centre[index] + change
        if value < low - SLACK or value > high + SLACK:
            raise OutOfBounds(param_id=index, value=value, min=low, max=high)


def clamp(vec: Vec, bounds: tuple[tuple[float, float], ...] | None) -> Vec:
    if bounds is None:
        return vec
    return tuple(min(max(value, low), high) for value, (low, high) in zip(vec, bounds, strict=True))


class RateLimit:
    """Counts accepted changes: a smallest interval, and a sliding window."""

    def __init__(self, guardrails: Guardrails):
        rate = guardrails.max_updates_per_second
        self.min_interval_us = guardrails.min_interval_us
        # Less than one a second is one in a longer window.
        self.count_max = max(1, math.floor(rate))
        self.window_us = SECOND_US if rate >= 1 else math.ceil(SECOND_US / rate)
        self.accepted_us: deque[int] = deque(maxlen=self.count_max)

    def earliest_us(self) -> int:
        """The first moment at which the next change passes."""
        if not self.accepted_us:
            return 0
        earliest = self.accepted_us[-1] + self.min_interval_us
        if len(self.accepted_us) == self.count_max:
            earliest = max(earliest, self.accepted_us[0] + self.window_us)
        return earliest

    def check(self, now_us: int) -> None:
        earliest_us = self.earliest_us()
        if self.accepted_us and now_us < earliest_us:
            raise RateLimitExceeded(count=len(self.accepted_us), max=self.count_max, earliest_us=earliest_us)

    def accept(self, now_us: int) -> None:
        self.accepted_us.append(now_us)
