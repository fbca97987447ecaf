"""The only one who changes the live configuration.

A proposal passes all checks, in a fixed order, or nothing changes at all. Rollback, abort and safe mode lead back to a
vector that was measured before; they are not limited by rate, budget or pause, and are always possible.
"""

import json
from dataclasses import dataclass

from scheduler.errors import ClockWentBack
from scheduler.hotpath.audit import AuditEvent, AuditQueue, EventType
from scheduler.hotpath.checks import require
from scheduler.hotpath.config import AtomicConfig, ConfigSnapshot
from scheduler.hotpath.control_safety import ControlRules, ControlSafety
from scheduler.hotpath.errors import (
    AuditQueueFull,
    ConstraintViolation,
    CooldownActive,
    DirectionFlipViolation,
    Fenced,
    InSafeMode,
    NoBaseline,
    NotNow,
    Paused,
    Pinned,
    ProbeActive,
    ProposerDefect,
    StaleBase,
    Violation,
)
from scheduler.hotpath.guardrails import Guardrails, RateLimit, check_moves, check_shape, clamp
from scheduler.hotpath.knobs import KnobRegistry, Vec
from scheduler.hotpath.proposal import NoChange, Proposal, Update, phase_of, proposal_id
from scheduler.hotpath.proposer import Footing
from scheduler.hotpath.rollback import CircuitBreaker, RollbackPolicy
from scheduler.hotpath.safe_mode import (
    AuditDrained,
    ExitCondition,
    ManualReset,
    SafeMode,
    SafeModeReason,
    Timer,
    latch,
)

DEFECTS_MAX = 3
_ENCODER = json.JSONEncoder(sort_keys=True)


@dataclass(frozen=True)
class ApplyReceipt:
    """The generation in force, and the time from proposal to publication."""

    new_generation: int
    apply_latency_us: int = 0


@dataclass(frozen=True)
class RollbackReceipt:
    """The new generation, the one whose values came back, and who wanted it."""

    new_generation: int
    reverted_to_generation: int
    cause: str
    actor: str
    breaker_tripped: bool = False


class SafetyExecutor:
    """Holds the centre, the baseline and the right to publish."""

    def __init__(
        self,
        config: AtomicConfig,
        guardrails: Guardrails | None = None,
        rollback_policy: RollbackPolicy | None = None,
        control_rules: ControlRules | None = None,
        audit_queue: AuditQueue | None = None,
        registry: KnobRegistry | None = None,
        run_id: str = "run",
    ):
        self.config = config
        self.guardrails = guardrails or Guardrails()
        self.rollback_policy = rollback_policy or RollbackPolicy()
        self.audit_queue = AuditQueue() if audit_queue is None else audit_queue  # an empty one is false
        self.run_id = run_id
        self.centre: Vec = config.snapshot().params
        self.bounds, self.max_deltas = _envelope(self.centre, self.guardrails, registry)
        rules, limit = control_rules or ControlRules(), self.rollback_policy.max_consecutive_regressions
        self.control_safety = ControlSafety(self.centre, self.guardrails, rules, limit)
        self.breaker = CircuitBreaker(self.rollback_policy)
        self.rate = RateLimit(self.guardrails)
        self.baseline: ConfigSnapshot | None = None
        self.safe_mode: SafeMode | None = None
        self.phase = "centre"
        self.applied_us: int | None = None
        self.rolled_back_us: int | None = None
        self.paused_us: int | None = None
        self.fenced = False
        self.pins: dict[int, float] = {}
        self.margin: float | None = None
        self.objective: float | None = None
        self.ruler = ""  # The version of the objective by which all is measured.
        self.defects = 0
        self.breaks = 0  # Grows whenever a measurement that was under way has lost its meaning.
        self._writer = config.claim()
        self.now_us: int | None = None
        self.told: set[tuple[str, str]] = set()

    def snapshot(self) -> ConfigSnapshot:
        return self.config.snapshot()

    def apply(
        self, proposal: Proposal, now_us: int, *, proposed_us: int | None = None, base_generation: int | None = None
    ) -> ApplyReceipt:
        """Applies a proposal completely, or raises the violation and leaves the configuration as it is."""
        self.tick(now_us)
        if isinstance(proposal, NoChange):
            return ApplyReceipt(self.config.generation)
        try:
            self._check(proposal, now_us, base_generation)
        except Violation as violation:
            self._refuse(violation, proposal, now_us)
            raise
        return self._accept(proposal, now_us, now_us if proposed_us is None else proposed_us)

    def tick(self, now_us: int) -> None:
        """Lets time pass: ends safe mode when its conditions are met, moves pinned knobs a step."""
        if self.now_us is not None and now_us < self.now_us:
            raise ClockWentBack(f"now is {now_us} us, but {self.now_us} us has been seen; use a monotonic clock")
        self.now_us = now_us
        if self.safe_mode and self.safe_mode.is_over(now_us, self.audit_queue.below_mark, self.objective):
            self._leave_safe_mode(now_us, "engine", "conditions met")
        if self.ramping and self.phase == "centre" and now_us >= self.rate.earliest_us():
            self._ramp(now_us)

    def set_baseline(self, now_us: int, actor: str = "operator", cause: str = "") -> ConfigSnapshot:
        """Makes the centre the vector to which rollbacks return."""
        self.tick(now_us)
        if self.phase != "centre":
            raise ProbeActive(phase=self.phase)
        if not self.audit_queue.has_room():
            raise AuditQueueFull(length=len(self.audit_queue), capacity=self.audit_queue.capacity)
        self.baseline = ConfigSnapshot(self.centre, self.config.generation)
        self.record(EventType.BASELINE_SET, now_us, actor=actor, cause=cause, details={"params": self.centre})
        return self.baseline

    def rollback(
        self, now_us: int, actor: str = "operator", cause: str = "", target: ConfigSnapshot | None = None
    ) -> RollbackReceipt:
        """Returns to the baseline, or to a vector of old, on an operator's word: never refused, never counted."""
        self.tick(now_us)
        if target is not None:
            check_shape(target.params, len(self.centre))
            params = tuple(self.pins.get(index, value) for index, value in enumerate(target.params))
            target = ConfigSnapshot(clamp(params, self.bounds), target.generation)
        return self._return_to(target or self.baseline, now_us, actor, cause, {})

    def roll_back_automatically(self, now_us: int, cause: str, evidence: dict) -> RollbackReceipt:
        """Returns to the baseline and counts it; the one too many in an hour also latches until an operator looks."""
        tripped = self.breaker.trips(now_us)
        evidence = {**evidence, "breaker_tripped": tripped}
        receipt = self._return_to(self.baseline, now_us, "engine", cause, evidence, tripped)
        if tripped:
            self._stop_after_too_many(now_us)
        return receipt

    def tell_rollback(self, now_us: int, actor: str, cause: str, counted: bool, details: dict) -> None:
        """Takes note of a rollback of what is not in this vector: stable time and breaker are the same for all."""
        tripped = counted and self.breaker.trips(now_us)
        self.rolled_back_us = now_us
        told = {**details, "breaker_tripped": tripped}
        self.record(EventType.ROLLBACK, now_us, actor=actor, cause=cause, details=told)
        if tripped:
            self._stop_after_too_many(now_us)

    def freeze_at_baseline(self, now_us: int, cause: str, evidence: dict) -> None:
        """Returns to the baseline without counting it, and stops for a while: even the baseline was worse."""
        self._return_to(self.baseline, now_us, "engine", cause, evidence)
        timer = Timer(self.guardrails.cooldown_after_flip_us)
        self.enter_safe_mode(now_us, SafeModeReason.OBJECTIVE_REGRESSION, timer, cause=cause)

    def abort(self, now_us: int, cause: str, actor: str = "engine") -> None:
        """Returns from a probe to the centre, if there is one, and ends the measurement."""
        self.breaks += 1
        if self.phase == "centre":
            return
        base = self.config.generation
        self._publish(self.centre, "centre", now_us)
        self.record(EventType.ABORT, now_us, actor=actor, cause=cause, base=base)

    def enter_safe_mode(
        self, now_us: int, reason: SafeModeReason, condition: ExitCondition, actor: str = "engine", cause: str = ""
    ) -> None:
        """Adds a condition to the latch, after leaving any probe."""
        self.abort(now_us, reason.value, actor)
        before = self.safe_mode
        self.safe_mode = latch(before, reason, condition, now_us, self.objective)
        if self.safe_mode != before:
            details = {"reason": reason.value, "exit": type(condition).__name__, **vars(condition)}
            self.record(EventType.SAFE_MODE_ENTERED, now_us, actor=actor, cause=cause, details=details)

    def reset_safe_mode(self, now_us: int, actor: str, cause: str) -> None:
        """Opens the latch on an operator's word."""
        if self.safe_mode:
            self._leave_safe_mode(now_us, actor, cause)

    def pin(self, index: int, value: float, now_us: int, *, jump: bool = False) -> None:
        """Fixes a knob; it gets there in allowed steps, or at once."""
        require(0 <= index < len(self.centre), "index of a knob", f"0 to {len(self.centre) - 1}", index)
        low, high = self.bounds[index] if self.bounds else (-float("inf"), float("inf"))
        require(low <= value <= high, f"pinned value of knob {index}", f"in {low}..{high}", value)
        if not self.audit_queue.has_room():
            raise AuditQueueFull(length=len(self.audit_queue), capacity=self.audit_queue.capacity)
        self.abort(now_us, "pin", "operator")
        self.pins[index] = value
        if self.baseline is not None:
            self.baseline = ConfigSnapshot(_replaced(self.baseline.params, index, value), self.baseline.generation)
        if jump:
            self._publish_centre(_replaced(self.centre, index, value), now_us)
        elif now_us >= self.rate.earliest_us():
            self._ramp(now_us)

    @property
    def ramping(self) -> bool:
        """True while a pinned knob is still on its way."""
        return any(self.centre[index] != value for index, value in self.pins.items())

    def cooldown_end_us(self) -> int:
        """The end of the stable time after the last rollback."""
        return 0 if self.rolled_back_us is None else self.rolled_back_us + self.rollback_policy.min_stable_time_us

    def footing(self, now_us: int) -> Footing:
        """Says how far an update may go, so that none has to be refused for its size."""
        left = self.control_safety.budget_left(now_us)
        reach = [min(*pair) for pair in zip(self.max_deltas, left, strict=True)]
        headroom = []
        for index, (unit, far) in enumerate(zip(self.centre, reach, strict=True)):
            low, high = self.bounds[index] if self.bounds else (-float("inf"), float("inf"))
            far = 0.0 if index in self.pins else far
            headroom.append((max(-far, low - unit), min(far, high - unit)))
        return Footing(self.centre, self.bounds, tuple(headroom), self.max_deltas, frozenset(self.pins))

    def record(
        self,
        event_type: EventType,
        now_us: int,
        *,
        actor: str = "engine",
        cause: str = "",
        proposal: str = "",
        base: int | None = None,
        details: dict | None = None,
    ) -> None:
        generation = self.config.generation
        self.audit_queue.enqueue(
            AuditEvent(
                timestamp_us=now_us,
                event_type=event_type,
                generation=generation,
                details=_ENCODER.encode(details or {}),
                run_id=self.run_id,
                proposal_id=proposal,
                base_generation=generation if base is None else base,
                actor=actor,
                cause=cause,
                objective=self.ruler,
            )
        )

    def _check(self, proposal: Proposal, now_us: int, base_generation: int | None) -> None:
        """All reasons to refuse, the first one wins."""
        assert not isinstance(proposal, NoChange)
        check_shape(proposal.delta, len(self.centre))
        if not self.audit_queue.has_room():
            raise AuditQueueFull(length=len(self.audit_queue), capacity=self.audit_queue.capacity)
        self._check_gates(proposal.delta, base_generation)
        if self.safe_mode:
            raise InSafeMode(reason=self.safe_mode.reason.value, until_us=self.safe_mode.until_us)
        if self.baseline is None:
            raise NoBaseline(remedy="set_baseline")
        if now_us < self.cooldown_end_us():
            raise CooldownActive(earliest_us=self.cooldown_end_us())
        self.rate.check(now_us)
        check_moves(proposal.delta, self.centre, self.max_deltas, self.bounds)
        if isinstance(proposal, Update):
            if self.margin is not None and self.margin < 0:
                raise ConstraintViolation(margin=self.margin)
            self.control_safety.check_budget(proposal.delta, now_us)
            self.control_safety.check_flips(self._moved(proposal.delta), now_us)

    def _check_gates(self, delta: Vec, base_generation: int | None) -> None:
        if self.fenced:
            raise Fenced(remedy="acquire a new lease")
        if base_generation is not None and base_generation != self.config.generation:
            raise StaleBase(base=base_generation, current=self.config.generation)
        if self.paused_us is not None:
            raise Paused(since_us=self.paused_us)
        for index in sorted(self.pins):
            if delta[index] != 0:
                raise Pinned(param_id=index, delta=delta[index])

    def _accept(self, proposal: Proposal, now_us: int, proposed_us: int) -> ApplyReceipt:
        assert not isinstance(proposal, NoChange)
        base, target = self.config.generation, self._moved(proposal.delta)
        if isinstance(proposal, Update):
            self.control_safety.move(proposal.delta, target, now_us)
            self.centre = target
        generation = self._publish(target, phase_of(proposal), now_us)
        self.rate.accept(now_us)
        self.defects = 0
        self.told.clear()
        receipt = ApplyReceipt(generation, now_us - proposed_us)
        details = {
            "kind": type(proposal).__name__,
            **vars(proposal),
            "live": target,
            "apply_latency_us": receipt.apply_latency_us,
        }
        name = proposal_id(self.run_id, proposal)
        self.record(EventType.APPLY, now_us, proposal=name, base=base, details=details)
        return receipt

    def _refuse(self, violation: Violation, proposal: Proposal, now_us: int) -> None:
        """What a refusal leads to: a probe ends unless the same proposal may simply be repeated."""
        name = proposal_id(self.run_id, proposal)
        if (violation.kind, name) not in self.told:
            self.told.add((violation.kind, name))
            details = {"kind": violation.kind, **{key: _json(value) for key, value in violation.details.items()}}
            self.record(EventType.VIOLATION, now_us, proposal=name, details=details)
        if isinstance(violation, (NotNow, NoBaseline, Fenced)):
            return
        self.abort(now_us, violation.kind)
        if isinstance(violation, AuditQueueFull):
            self.enter_safe_mode(now_us, SafeModeReason.AUDIT_QUEUE_FULL, AuditDrained(), cause=name)
        elif isinstance(violation, DirectionFlipViolation):
            timer = Timer(self.guardrails.cooldown_after_flip_us)
            self.enter_safe_mode(now_us, SafeModeReason.THRASHING, timer, cause=name)
        elif isinstance(violation, ProposerDefect):
            self.defects += 1
            if self.defects >= DEFECTS_MAX:
                self.enter_safe_mode(now_us, SafeModeReason.REPEATED_VIOLATIONS, ManualReset(), cause=violation.kind)

    def _return_to(
        self,
        target: ConfigSnapshot | None,
        now_us: int,
        actor: str,
        cause: str,
        evidence: dict,
        tripped: bool = False,
    ) -> RollbackReceipt:
        if target is None:
            raise NoBaseline(remedy="set_baseline")
        base = self.config.generation
        self.breaks += 1
        self.centre = target.params
        self._publish(self.centre, "centre", now_us)
        self.control_safety.clear_path(self.centre)
        self.rolled_back_us = now_us
        reverted_to = target.generation
        details = {"reverted_to_generation": reverted_to, "params": self.centre, **evidence}
        self.record(EventType.ROLLBACK, now_us, actor=actor, cause=cause, base=base, details=details)
        return RollbackReceipt(self.config.generation, reverted_to, cause, actor, tripped)

    def _stop_after_too_many(self, now_us: int) -> None:
        self.enter_safe_mode(now_us, SafeModeReason.REPEATED_VIOLATIONS, ManualReset(), cause="too many rollbacks")

    def _leave_safe_mode(self, now_us: int, actor: str, cause: str) -> None:
        assert self.safe_mode is not None
        details = {"reason": self.safe_mode.reason.value, "duration_us": now_us - self.safe_mode.entered_at_us}
        self.safe_mode, self.defects = None, 0
        self.control_safety.clear(self.centre)
        self.record(EventType.SAFE_MODE_EXITED, now_us, actor=actor, cause=cause, details=details)

    def _ramp(self, now_us: int) -> None:
        """Moves each pinned knob towards its value by one allowed step."""
        if not self.audit_queue.has_room():
            return
        centre = self.centre
        for index, value in sorted(self.pins.items()):
            far = self.max_deltas[index]
            way = value - centre[index]
            centre = _replaced(centre, index, value if abs(way) <= far else centre[index] + (far if way > 0 else -far))
        if centre != self.centre:
            self._publish_centre(centre, now_us)

    def _publish_centre(self, centre: Vec, now_us: int) -> None:
        base = self.config.generation
        self.centre = centre
        self.control_safety.clear_path(centre)
        self._publish(centre, "centre", now_us)
        self.rate.accept(now_us)
        self.record(EventType.APPLY, now_us, actor="operator", cause="pin", base=base, details={"live": centre})

    def _publish(self, live: Vec, phase: str, now_us: int) -> int:
        self.phase, self.applied_us = phase, now_us
        return self._writer.update(live)

    def _moved(self, delta: Vec) -> Vec:
        return clamp(tuple(unit + change for unit, change in zip(self.centre, delta, strict=True)), self.bounds)

    def continue_from(self, snapshot: ConfigSnapshot) -> None:
        """Takes over the configuration of a checkpoint; the generation goes on, it does not start again."""
        self._writer.resume(snapshot)


def _envelope(
    centre: Vec, guardrails: Guardrails, registry: KnobRegistry | None
) -> tuple[tuple[tuple[float, float], ...] | None, Vec]:
    """The bounds and the largest step of each knob; registered knobs stay in their unit range."""
    n = len(centre)
    require(registry is None or len(registry) == n, "number of knobs", "that of the registry", n)
    bounds = guardrails.bounds or (((0.0, 1.0),) * n if registry else None)
    require(bounds is None or len(bounds) == n, "number of bounds", f"one for each of {n} knobs", bounds)
    for unit, (low, high) in zip(centre, bounds or (), strict=bounds is not None):
        require(low <= unit <= high, "initial vector", "inside its bounds", centre)
    own = [knob.max_delta for knob in registry.knobs] if registry else [None] * n
    return bounds, tuple(guardrails.max_delta_per_step if far is None else far for far in own)


def _replaced(vec: Vec, index: int, value: float) -> Vec:
    return (*vec[:index], value, *vec[index + 1 :])


def _json(value: object) -> object:
    """A number that JSON can hold: what is not finite becomes text."""
    return str(value) if isinstance(value, float) and not -float("inf") < value < float("inf") else value
