"""Safe mode: nothing is tuned until its conditions for leaving are all met.

A new trigger may add a condition or prolong a timer, never take one away.
"""

import enum
from dataclasses import dataclass, replace


class SafeModeReason(enum.Enum):
    THRASHING = "thrashing"
    BUDGET_EXHAUSTED = "budget_exhausted"
    OBJECTIVE_REGRESSION = "objective_regression"
    AUDIT_QUEUE_FULL = "audit_queue_full"
    REPEATED_VIOLATIONS = "repeated_violations"
    MANUAL_TRIGGER = "manual_trigger"
    EVAL_TIMEOUT = "eval_timeout"


@dataclass(frozen=True)
class Timer:
    """Ends by itself after a while."""

    duration_us: int


@dataclass(frozen=True)
class AuditDrained:
    """Ends when the audit queue is below its high-water mark."""


@dataclass(frozen=True)
class ObjectiveRecovery:
    """Ends when the objective is that much below what it was on entry."""

    required_improvement: float


@dataclass(frozen=True)
class ManualReset:
    """Ends when an operator says so."""


ExitCondition = Timer | AuditDrained | ObjectiveRecovery | ManualReset
_STRENGTH = {Timer: 0, AuditDrained: 0, ObjectiveRecovery: 1, ManualReset: 2}


@dataclass(frozen=True)
class SafeMode:
    """The latch: why it holds, since when, and what must be true before it opens."""

    entered_at_us: int
    reason: SafeModeReason
    strength: int = 0
    until_us: int | None = None
    drained: bool = False
    objective_max: float | None = None
    manual: bool = False

    def is_over(self, now_us: int, audit_drained: bool, objective: float | None) -> bool:
        recovered = self.objective_max is None or (objective is not None and objective <= self.objective_max)
        in_time = self.until_us is None or now_us >= self.until_us
        return not self.manual and recovered and in_time and (audit_drained or not self.drained)


def latch(
    held: SafeMode | None, reason: SafeModeReason, condition: ExitCondition, now_us: int, objective: float | None = None
) -> SafeMode:
    """Adds a trigger to the latch; the reason is that of the strongest condition, or of the later end."""
    strength = _STRENGTH[type(condition)]
    before = held or SafeMode(now_us, reason, strength)
    after = _with(before, condition, now_us, objective)
    prolonged = strength == before.strength and after.until_us != before.until_us
    if strength > before.strength or prolonged:
        after = replace(after, reason=reason)
    return replace(after, strength=max(strength, before.strength))


def _with(held: SafeMode, condition: ExitCondition, now_us: int, objective: float | None) -> SafeMode:
    match condition:
        case Timer(duration_us):
            return replace(held, until_us=max(held.until_us or 0, now_us + duration_us))
        case AuditDrained():
            return replace(held, drained=True)
        case ObjectiveRecovery(required_improvement):
            wanted = (objective if objective is not None else 0.0) - required_improvement
            known = held.objective_max
            return replace(held, objective_max=wanted if known is None else min(wanted, known))
        case ManualReset():
            return replace(held, manual=True)
