"""Watches the path of the centre: does it turn back and forth, run too far, or get worse?

Only updates of the centre count. A probe is bounded and always returns, so it is neither a move nor a turn. Sliding
windows are half open: what happened at t counts while now - t < window.
"""

import enum
import math
from collections import deque
from dataclasses import dataclass

from scheduler.hotpath.checks import require, require_positive
from scheduler.hotpath.errors import CumulativeDeltaViolation, DirectionFlipViolation
from scheduler.hotpath.guardrails import SLACK, Guardrails
from scheduler.hotpath.knobs import Vec

MINUTE_US = 60_000_000
HOUR_US = 3_600_000_000
_FOLLOW = 0.2  # How fast the reference objective follows good cycles,
_SMOOTH = 0.1  # and the noise its windows.


@dataclass(frozen=True)
class ControlRules:
    """The thresholds of the watch."""

    flip_hysteresis: float = 0.03
    flip_window_us: int = MINUTE_US
    regression_threshold: float = 0.01
    regression_z: float = 3.0

    def __post_init__(self) -> None:
        require_positive(flip_window_us=self.flip_window_us, regression_threshold=self.regression_threshold)
        require(0 <= self.flip_hysteresis <= 1, "flip_hysteresis", "in 0..1", self.flip_hysteresis)
        good = math.isfinite(self.regression_z) and self.regression_z >= 0
        require(good, "regression_z", "not negative", self.regression_z)


class Verdict(enum.Enum):
    """What one finished cycle means."""

    FINE = "fine"
    WORSE = "worse"
    ROLL_BACK = "roll_back"
    FREEZE = "freeze"


class FlipTracker:
    """Counts turning points of one knob: a return from the last extreme by at least the hysteresis."""

    def __init__(self, value: float, hysteresis: float):
        self.extreme = value
        self.direction = 0
        self.flips_us: deque[int] = deque()
        self._hysteresis = hysteresis

    def turns(self, value: float) -> bool:
        """True if moving there would be a turning point."""
        change = value - self.extreme
        return self.direction * change < 0 and abs(change) >= self._hysteresis - SLACK

    def recent(self, now_us: int, window_us: int) -> int:
        while self.flips_us and now_us - self.flips_us[0] >= window_us:
            self.flips_us.popleft()
        return len(self.flips_us)

    def move(self, value: float, now_us: int) -> None:
        change = value - self.extreme
        if self.turns(value):
            self.flips_us.append(now_us)
            self.direction, self.extreme = -self.direction, value
        elif self.direction * change > 0:
            self.extreme = value
        elif self.direction == 0 and change and abs(change) >= self._hysteresis - SLACK:
            self.direction, self.extreme = (1 if change > 0 else -1), value


class BudgetTracker:
    """Sums up how far each knob went inside a sliding window."""

    def __init__(self, n: int, limit: float, window_us: int):
        self.limit, self.window_us = limit, window_us
        self.moves: deque[tuple[int, Vec]] = deque()
        self._n = n

    def used(self, now_us: int) -> Vec:
        while self.moves and now_us - self.moves[0][0] >= self.window_us:
            self.moves.popleft()
        if not self.moves:
            return (0.0,) * self._n
        return tuple(math.fsum(column) for column in zip(*(sizes for _, sizes in self.moves), strict=True))

    def left(self, now_us: int) -> Vec:
        return tuple(max(0.0, self.limit - used) for used in self.used(now_us))

    def move(self, delta: Vec, now_us: int) -> None:
        self.moves.append((now_us, tuple(abs(change) for change in delta)))


class RegressionTracker:
    """Compares each cycle with a reference that learns from good cycles and freezes during bad ones."""

    def __init__(self, rules: ControlRules, rollback_limit: int, freeze_limit: int):
        self.reference: float | None = None
        self.variance: float | None = None
        self.worse_since_rollback = 0
        self.worse_in_a_row = 0
        self._rules = rules
        self._rollback_limit, self._freeze_limit = rollback_limit, freeze_limit

    @property
    def sigma(self) -> float:
        """The noise of a cycle's centre objective: the mean of two window means."""
        return math.sqrt(self.variance / 2) if self.variance else 0.0

    def observe_noise(self, variance: float) -> None:
        """Takes the variance of one window's mean."""
        before = self.variance
        self.variance = variance if before is None else before + _SMOOTH * (variance - before)

    def threshold(self) -> float:
        reference = self.reference or 0.0
        return max(self._rules.regression_threshold * max(1.0, abs(reference)), self._rules.regression_z * self.sigma)

    def judge(self, objective: float) -> Verdict:
        if self.reference is None:
            self.reference = objective
            return Verdict.FINE
        if objective <= self.reference + self.threshold():
            self.reference += _FOLLOW * (objective - self.reference)
            self.worse_since_rollback = self.worse_in_a_row = 0
            return Verdict.FINE
        self.worse_since_rollback += 1
        self.worse_in_a_row += 1
        if self.worse_in_a_row >= self._freeze_limit:
            return Verdict.FREEZE
        if self.worse_since_rollback >= self._rollback_limit:
            self.worse_since_rollback = 0
            return Verdict.ROLL_BACK
        return Verdict.WORSE

    def forget(self) -> None:
        """Learns the reference again; the noise is still the same."""
        self.reference = None
        self.worse_since_rollback = self.worse_in_a_row = 0

    def forget_all(self) -> None:
        """Learns the noise again too: it was told in another unit."""
        self.forget()
        self.variance = None


class ControlSafety:
    """All that is remembered about the path of the centre."""

    def __init__(self, centre: Vec, guardrails: Guardrails, rules: ControlRules, rollback_limit: int):
        self.rules = rules
        self.flip_limit = guardrails.direction_flip_limit
        budgets = [(guardrails.max_cumulative_delta_per_minute, MINUTE_US)]
        if guardrails.max_cumulative_delta_per_hour is not None:
            budgets.append((guardrails.max_cumulative_delta_per_hour, HOUR_US))
        self._budgets = budgets
        self.regression = RegressionTracker(rules, rollback_limit, guardrails.regression_count_limit)
        self.clear_path(centre)

    def clear_path(self, centre: Vec) -> None:
        """Forgets turns and moves: the path starts anew at this centre."""
        self.flips = [FlipTracker(value, self.rules.flip_hysteresis) for value in centre]
        self.budgets = [BudgetTracker(len(centre), limit, window_us) for limit, window_us in self._budgets]

    def clear(self, centre: Vec) -> None:
        self.clear_path(centre)
        self.regression.forget()

    def budget_left(self, now_us: int) -> Vec:
        return tuple(map(min, zip(*(budget.left(now_us) for budget in self.budgets), strict=True)))

    def check_budget(self, delta: Vec, now_us: int) -> None:
        for budget in self.budgets:
            for index, (used, change) in enumerate(zip(budget.used(now_us), delta, strict=True)):
                if used + abs(change) > budget.limit + SLACK:
                    raise CumulativeDeltaViolation(param_id=index, used=used, delta=change, limit=budget.limit)

    def check_flips(self, centre: Vec, now_us: int) -> None:
        for index, (flips, value) in enumerate(zip(self.flips, centre, strict=True)):
            count = flips.recent(now_us, self.rules.flip_window_us)
            if flips.turns(value) and count + 1 > self.flip_limit:
                raise DirectionFlipViolation(param_id=index, flips=count + 1, limit=self.flip_limit)

    def move(self, delta: Vec, centre: Vec, now_us: int) -> None:
        """Remembers an accepted update."""
        for budget in self.budgets:
            budget.move(delta, now_us)
        for flips, value in zip(self.flips, centre, strict=True):
            flips.move(value, now_us)

    def checkpoint(self) -> dict:
        return {
            "flips": [[f.extreme, f.direction, list(f.flips_us)] for f in self.flips],
            "moves": [[[at, list(sizes)] for at, sizes in budget.moves] for budget in self.budgets],
            "reference": self.regression.reference,
            "variance": self.regression.variance,
            "worse": [self.regression.worse_since_rollback, self.regression.worse_in_a_row],
        }

    def restore(self, state: dict) -> None:
        for flips, (extreme, direction, flips_us) in zip(self.flips, state["flips"], strict=True):
            flips.extreme, flips.direction, flips.flips_us = extreme, direction, deque(flips_us)
        for budget, moves in zip(self.budgets, state["moves"], strict=True):
            budget.moves = deque((at, tuple(sizes)) for at, sizes in moves)
        self.regression.reference, self.regression.variance = state["reference"], state["variance"]
        self.regression.worse_since_rollback, self.regression.worse_in_a_row = state["worse"]
