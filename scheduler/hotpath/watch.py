"""Watches what the changes lead to: goes back when it got worse, and remembers a centre that proved good.

Constraints come first. A probe that breaks one ends at once; a centre that breaks one for three windows goes back to
the baseline; far below the margin everything stops. After them comes the objective, once for each finished cycle.
"""

from scheduler.hotpath.control_safety import Verdict
from scheduler.hotpath.engine_config import AdaptiveEngineConfig
from scheduler.hotpath.executor import SafetyExecutor
from scheduler.hotpath.guardrails import SLACK
from scheduler.hotpath.proposal import NoChangeReason
from scheduler.hotpath.proposer import Cycle
from scheduler.hotpath.safe_mode import SafeModeReason, Timer

MARGIN_FAR_BELOW = -0.5
MARGIN_WINDOWS_MAX = 3
PROMOTE_CYCLES = 20
PROMOTE_STABLE_TIMES = 10


class Watch:
    """Tells the executor to go back, to stop, or to take a new baseline."""

    def __init__(self, executor: SafetyExecutor, settings: AdaptiveEngineConfig):
        self.executor, self.settings = executor, settings
        self.violating_digests = 0
        self.violating_windows = 0
        self.quiet_cycles = 0
        self.quiet_since_us: int | None = None
        self.baseline_objective: float | None = None
        self.promotable = False

    def heed_margin(self, now_us: int) -> NoChangeReason | None:
        """Looks at the newest margin; an answer means that nothing is to be proposed now."""
        executor, margin = self.executor, self.executor.margin
        if margin is None or margin >= 0 or executor.safe_mode:
            self.violating_digests = self.violating_windows = 0
            return None
        if margin < MARGIN_FAR_BELOW - SLACK:
            return self._stop_at_once(margin, now_us)
        if executor.phase != "centre":
            executor.abort(now_us, "constraint_violation")
            return NoChangeReason.CONSTRAINT_VIOLATION
        return self._count_violation(margin, now_us)

    def judge(self, cycle: Cycle, now_us: int) -> NoChangeReason | None:
        """Compares a finished cycle with what was known; an answer means that its update must not happen."""
        regression = self.executor.control_safety.regression
        regression.observe_noise(cycle.variance_plus)
        regression.observe_noise(cycle.variance_minus)
        evidence = {
            "objective": cycle.objective,
            "reference": regression.reference,
            "threshold": regression.threshold(),
        }
        verdict = regression.judge(cycle.objective)
        if verdict is Verdict.FINE:
            self._count_quiet(cycle, now_us)
            return None
        self.disturb()
        if verdict is Verdict.WORSE:
            return None
        if verdict is Verdict.FREEZE:
            self.executor.freeze_at_baseline(now_us, "objective_regression", evidence)
        else:
            self.executor.roll_back_automatically(now_us, "objective_regression", evidence)
        return NoChangeReason.SAFE_MODE if self.executor.safe_mode else NoChangeReason.ROLLED_BACK

    def promote(self, now_us: int) -> None:
        """Makes a centre that has been good for long enough the baseline, where that is wanted."""
        if self.settings.auto_promote and self.promotable and self.executor.audit_queue.has_room():
            self.executor.set_baseline(now_us, "engine", "promotion")
            self.start_anew()

    def start_anew(self) -> None:
        """A new baseline has to prove itself."""
        self.baseline_objective = None
        self.disturb()

    def disturb(self) -> None:
        """Something happened that a good centre does not do."""
        self.quiet_cycles, self.quiet_since_us, self.promotable = 0, None, False

    def _count_violation(self, margin: float, now_us: int) -> NoChangeReason | None:
        """Groups digests of a violating centre into windows; each is reported once, the third goes back."""
        self.violating_digests += 1
        if self.violating_digests < self.settings.spsa.eval_window_digests:
            return None
        self.violating_digests = 0
        self.violating_windows += 1
        if self.violating_windows >= MARGIN_WINDOWS_MAX and self.executor.baseline is not None:
            self.violating_windows = 0
            self.executor.roll_back_automatically(now_us, "constraint_violation", {"margin": margin})
        return NoChangeReason.CONSTRAINT_VIOLATION

    def _stop_at_once(self, margin: float, now_us: int) -> NoChangeReason:
        if self.executor.baseline is not None:
            self.executor.roll_back_automatically(now_us, "constraint_violation", {"margin": margin})
        timer = Timer(self.settings.guardrails.cooldown_after_flip_us)
        self.executor.enter_safe_mode(now_us, SafeModeReason.REPEATED_VIOLATIONS, timer, cause="constraint_violation")
        return NoChangeReason.SAFE_MODE

    def _count_quiet(self, cycle: Cycle, now_us: int) -> None:
        """Notes how long all has been well, and whether the centre may become the next baseline."""
        self.quiet_cycles += 1
        if self.quiet_since_us is None:
            self.quiet_since_us = now_us
        if self.baseline_objective is None:
            self.baseline_objective = cycle.objective
        quiet_us = now_us - self.quiet_since_us
        allowed = self.baseline_objective + self.executor.control_safety.regression.threshold()
        long_enough = quiet_us >= PROMOTE_STABLE_TIMES * self.settings.rollback_policy.min_stable_time_us
        self.promotable = long_enough and self.quiet_cycles >= PROMOTE_CYCLES and cycle.objective <= allowed

    def checkpoint(self) -> dict:
        return {name: value for name, value in vars(self).items() if name not in ("executor", "settings")}

    def restore(self, state: dict) -> None:
        vars(self).update(state)
