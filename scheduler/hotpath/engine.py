"""The adaptive engine: digests in, proposals out, outcomes back to the proposer.

    proposal = engine.observe(digest, now_us)      # or engine.tick(now_us) when no digest came
    engine.apply(proposal, now_us)

Every proposal is to be applied, probes included: an engine whose probes are left out learns nothing.
"""

import math
from collections import Counter

from scheduler.hotpath import checkpoint
from scheduler.hotpath.audit import AuditEvent, AuditQueue, EventType
from scheduler.hotpath.checks import require
from scheduler.hotpath.config import AtomicConfig, ConfigSnapshot
from scheduler.hotpath.engine_config import AdaptiveEngineConfig
from scheduler.hotpath.errors import BadCheckpoint, InSafeMode, NotNow, StaleBase, Violation
from scheduler.hotpath.executor import ApplyReceipt, RollbackReceipt, SafetyExecutor
from scheduler.hotpath.guardrails import SLACK
from scheduler.hotpath.knobs import KnobRegistry, Vec
from scheduler.hotpath.proposal import NoChange, NoChangeReason, Proposal, encode, proposal_id
from scheduler.hotpath.proposer import TIMEOUTS_MAX, SpsaProposer
from scheduler.hotpath.safe_mode import ExitCondition, ManualReset, SafeModeReason, Timer
from scheduler.hotpath.spsa import Spsa, SpsaState
from scheduler.hotpath.telemetry import DigestRules, DigestValidity, TelemetryDigest, TelemetryRing, validate
from scheduler.hotpath.watch import Watch

CHECKPOINT_VERSION = 1
RELEARN_AFTER_PAUSE_US = 600_000_000


class AdaptiveEngine:
    """One optimiser over one group of knobs."""

    def __init__(
        self,
        config: AdaptiveEngineConfig | None = None,
        initial_params: Vec | None = None,
        registry: KnobRegistry | None = None,
        run_id: str = "run",
    ):
        self.settings = config or AdaptiveEngineConfig()
        require(initial_params is not None or registry is not None, "initial_params", "given without a registry", None)
        initial = tuple(initial_params) if initial_params is not None else registry.defaults()  # type: ignore[union-attr]
        settings = self.settings
        self.registry = registry
        self.config = AtomicConfig(initial)
        self.executor = SafetyExecutor(
            self.config,
            settings.guardrails,
            settings.rollback_policy,
            settings.control,
            AuditQueue(settings.audit_queue_capacity),
            registry,
            run_id,
        )
        spsa = Spsa(settings.seed, len(initial), settings.learning_rate, settings.perturbation_scale, settings.spsa)
        self.proposer = SpsaProposer(spsa, registry)
        self.watch = Watch(self.executor, settings)
        self.digests = TelemetryRing(settings.telemetry_buffer_capacity)
        self.validities: Counter[DigestValidity] = Counter()
        self.violations: Counter[str] = Counter()
        self._rules = DigestRules(settings.spsa.settle_time_us, settings.max_digest_age_us, settings.max_digest_skew_us)
        self._breaks = 0
        self._proposed_us = 0

    def snapshot(self) -> ConfigSnapshot:
        return self.config.snapshot()

    def spsa_state(self) -> SpsaState:
        return self.proposer.spsa.state

    def drain_audit(self) -> list[AuditEvent]:
        return self.executor.audit_queue.drain()

    # The loop.

    def observe(self, digest: TelemetryDigest, now_us: int) -> Proposal:
        """Takes one digest; the answer is to be applied."""
        self._advance(now_us)
        executor = self.executor
        if executor.fenced:
            return NoChange(NoChangeReason.NOT_LEADER)
        validity = validate(digest, self.config.generation, executor.applied_us, now_us, self._rules)
        self.validities[validity] += 1
        self.digests.push(digest)
        self._record_digest(digest, validity, now_us)
        if validity is DigestValidity.INVALID:
            return NoChange(NoChangeReason.INVALID_DIGEST)
        if validity is DigestValidity.VALID:
            executor.objective, executor.margin = digest.objective_value, digest.constraint_margin
            reason = self.watch.heed_margin(now_us)
            self._follow_breaks()
            if reason is not None:
                return NoChange(reason)
            if not executor.safe_mode:
                self.proposer.spsa.record_objective(digest.objective_value, digest.sample_count)
        return self._propose(now_us)

    def tick(self, now_us: int) -> Proposal:
        """Lets time pass without a digest: windows time out, latches open."""
        self._advance(now_us)
        return self._propose(now_us)

    def apply(self, proposal: Proposal, now_us: int, *, base_generation: int | None = None) -> ApplyReceipt:
        """Hands a proposal to the executor, and the outcome back to the proposer."""
        self._advance(now_us)
        if isinstance(proposal, NoChange):
            return self.executor.apply(proposal, now_us)
        if proposal != self.proposer.pending:
            self.violations[StaleBase.__name__] += 1
            raise self._not_pending()
        try:
            receipt = self.executor.apply(
                proposal, now_us, proposed_us=self._proposed_us, base_generation=base_generation
            )
        except Violation as violation:
            self.violations[violation.kind] += 1
            if not isinstance(violation, NotNow):
                self.watch.disturb()
            self._follow_breaks()
            raise
        self.proposer.accepted(proposal, now_us)
        return receipt

    # Operators. Whatever else is to be known of a command goes to the audit with it.

    def set_baseline(self, now_us: int, actor: str = "operator", cause: str = "") -> ConfigSnapshot:
        baseline = self.executor.set_baseline(now_us, actor, cause)
        self.watch.start_anew()
        return baseline

    def rollback(
        self, now_us: int, actor: str = "operator", cause: str = "", target: ConfigSnapshot | None = None
    ) -> RollbackReceipt:
        receipt = self.executor.rollback(now_us, actor, cause, target)
        self._follow_breaks()
        return receipt

    def abort(self, now_us: int, actor: str, cause: str) -> None:
        """Ends a probe and throws away what was half measured; the iteration stays."""
        self._advance(now_us)
        self.executor.abort(now_us, cause, actor)
        self._follow_breaks()

    def pause(self, now_us: int, actor: str, cause: str, **details) -> None:
        """Ends a probe and makes no new ones; pausing again changes nothing."""
        self._advance(now_us)
        if self.executor.paused_us is None:
            self.executor.abort(now_us, "pause", actor)
            self.executor.paused_us = now_us
            self._command("pause", now_us, actor, cause, **details)

    def resume(self, now_us: int, actor: str, cause: str, **details) -> None:
        """Goes on; after a long pause the reference objective is learned again."""
        self._advance(now_us)
        executor = self.executor
        if executor.safe_mode and executor.safe_mode.manual:
            raise InSafeMode(reason=executor.safe_mode.reason.value, remedy="reset_safe_mode")
        if executor.paused_us is None:
            return
        if now_us - executor.paused_us > RELEARN_AFTER_PAUSE_US:
            executor.control_safety.regression.forget()
        executor.paused_us = None
        self._command("resume", now_us, actor, cause, **details)

    def pin(
        self, index: int, value: float, now_us: int, actor: str, cause: str, *, jump: bool = False, **details
    ) -> None:
        """Fixes a knob at a coordinate, for the baseline too; rollbacks do not undo it."""
        self._advance(now_us)
        self.executor.pin(index, value, now_us, jump=jump)
        self._command("pin", now_us, actor, cause, index=index, value=value, jump=jump, **details)

    def unpin(self, index: int, now_us: int, actor: str, cause: str, **details) -> None:
        """Tunes a knob again, from where it is."""
        self._advance(now_us)
        if self.executor.pins.pop(index, None) is not None:
            self.executor.abort(now_us, "unpin", actor)
            self._command("unpin", now_us, actor, cause, index=index, **details)

    def enter_safe_mode(self, now_us: int, actor: str, cause: str, condition: ExitCondition | None = None) -> None:
        """Stops tuning on an operator's word, by default until reset_safe_mode."""
        self._advance(now_us)
        condition = condition or ManualReset()
        self.executor.enter_safe_mode(now_us, SafeModeReason.MANUAL_TRIGGER, condition, actor, cause)
        self._follow_breaks()

    def reset_safe_mode(self, now_us: int, actor: str, cause: str) -> None:
        """Opens any latch, the circuit breaker's too."""
        self._advance(now_us)
        self.executor.reset_safe_mode(now_us, actor, cause)

    def measure_by(self, ruler: str, now_us: int, run_id: str) -> None:
        """Another objective: what was measured by the last one is forgotten, the knobs stay, a new run begins."""
        before, executor = self.executor.ruler, self.executor
        self.abort(now_us, "engine", EventType.OBJECTIVE_CHANGED.value)
        executor.control_safety.regression.forget_all()
        executor.objective = None
        self.watch.start_anew()
        self.proposer.begin_anew()
        executor.ruler, executor.run_id = ruler, run_id
        executor.record(EventType.OBJECTIVE_CHANGED, now_us, details={"before": before})

    def fence(self) -> None:
        """Stops leading for good: another leader has a newer token."""
        self.executor.fenced = True

    # Checkpoints.

    def checkpoint(self) -> dict:
        """The whole state as JSON values; `restore` continues with identical proposals."""
        return {
            "version": CHECKPOINT_VERSION,
            "seed": self.settings.seed,
            "run_id": self.executor.run_id,
            "registry": self.registry and self.registry.hash64,
            "executor": checkpoint.save(self.executor),
            "proposer": self.proposer.checkpoint(),
            "proposed_us": self._proposed_us,
            "watch": self.watch.checkpoint(),
            "validities": sorted((kind.value, count) for kind, count in self.validities.items()),
            "violations": sorted(self.violations.items()),
        }

    @classmethod
    def restore(
        cls, config: AdaptiveEngineConfig, state: dict, registry: KnobRegistry | None = None
    ) -> "AdaptiveEngine":
        """Continues where a checkpoint ends; a checkpoint of something else is refused by name."""
        expected = {"version": CHECKPOINT_VERSION, "seed": config.seed, "registry": registry and registry.hash64}
        for name, wanted in expected.items():
            if state.get(name) != wanted:
                raise BadCheckpoint(
                    f"{name} of the checkpoint is {state.get(name)}, expected {wanted}; migrate or reset the group"
                )
        engine = cls(config, tuple(state["executor"]["centre"]), registry, state["run_id"])
        checkpoint.load(engine.executor, state["executor"])
        engine.proposer.restore(state["proposer"])
        engine.watch.restore(state["watch"])
        engine._proposed_us = state["proposed_us"]
        engine.validities.update({DigestValidity(kind): count for kind, count in state["validities"]})
        engine.violations.update(dict(state["violations"]))
        return engine

    # What happens between a digest and a proposal.

    def _propose(self, now_us: int) -> Proposal:
        reason = self._reason_to_wait(now_us)
        if reason is not None:
            return NoChange(reason)
        known = self.proposer.pending
        proposal = self.proposer.propose(self.executor.footing(now_us))
        if proposal is not known:
            self._proposed_us = now_us
            name = proposal_id(self.executor.run_id, proposal)
            details = {"bytes": encode(proposal).decode()}
            self.executor.record(EventType.PROPOSAL, now_us, proposal=name, details=details)
        return proposal

    def _reason_to_wait(self, now_us: int) -> NoChangeReason | None:
        executor = self.executor
        if executor.fenced:
            return NoChangeReason.NOT_LEADER
        if executor.paused_us is not None:
            return NoChangeReason.PAUSED
        if executor.safe_mode:
            return NoChangeReason.SAFE_MODE
        return self._measuring(now_us) if self.proposer.measuring else self._starting(now_us)

    def _measuring(self, now_us: int) -> NoChangeReason | None:
        if self.proposer.spsa.has_enough_samples():
            cycle = self.proposer.finished_cycle()
            reason = None if cycle is None else self.watch.judge(cycle, now_us)
            self._follow_breaks()
            return reason
        if not self.proposer.overdue(now_us):
            return NoChangeReason.AWAITING_SAMPLES
        self.executor.record(EventType.TIMEOUT, now_us, details={"timeouts": self.proposer.timeouts})
        if self.proposer.timeouts < TIMEOUTS_MAX:
            return NoChangeReason.EVAL_TIMEOUT
        timer = Timer(self.settings.guardrails.cooldown_after_flip_us)
        self.executor.enter_safe_mode(now_us, SafeModeReason.EVAL_TIMEOUT, timer)
        self._follow_breaks()
        return NoChangeReason.SAFE_MODE

    def _starting(self, now_us: int) -> NoChangeReason | None:
        """Reasons not to begin a new cycle."""
        executor = self.executor
        if executor.margin is not None and executor.margin < 0:
            return NoChangeReason.AWAITING_SAMPLES
        if executor.ramping or now_us < executor.cooldown_end_us():
            return NoChangeReason.COOLDOWN_ACTIVE
        if max(executor.control_safety.budget_left(now_us)) < SLACK:
            return NoChangeReason.BUDGET_EXHAUSTED
        self.watch.promote(now_us)
        return None

    def _advance(self, now_us: int) -> None:
        self.executor.tick(now_us)
        self._follow_breaks()

    def _follow_breaks(self) -> None:
        """Drops a measurement whose probe has been ended by the executor."""
        if self.executor.breaks != self._breaks:
            self._breaks = self.executor.breaks
            self.proposer.reset()
            self.watch.disturb()

    def _not_pending(self) -> StaleBase:
        return StaleBase(remedy="apply the proposal that observe or tick returned last")

    def _command(self, command: str, now_us: int, actor: str, cause: str, **details) -> None:
        self._follow_breaks()
        body = {"command": command, **details}
        self.executor.record(EventType.COMMAND, now_us, actor=actor, cause=cause, details=body)

    def _record_digest(self, digest: TelemetryDigest, validity: DigestValidity, now_us: int) -> None:
        value = digest.objective_value
        details = {
            "digest_id": self.validities.total() - 1,
            "objective_value": value if math.isfinite(value) else str(value),
            "validity": validity.value,
            "generation": digest.config_generation,
        }
        self.executor.record(EventType.DIGEST, now_us, details=details)
