"""Everything that shapes one optimiser, in one frozen value."""

from dataclasses import dataclass, field, replace

from scheduler.hotpath.checks import require, require_count, require_positive
from scheduler.hotpath.control_safety import ControlRules
from scheduler.hotpath.guardrails import Guardrails
from scheduler.hotpath.rollback import RollbackPolicy
from scheduler.hotpath.spsa import SpsaConfig


@dataclass(frozen=True)
class AdaptiveEngineConfig:
    """The defaults are those of a test bench; `for_fleet` has a fleet's."""

    spsa: SpsaConfig = field(default_factory=SpsaConfig)
    guardrails: Guardrails = field(default_factory=Guardrails)
    seed: int = 42
    learning_rate: float = 0.1
    perturbation_scale: float = 0.01
    rollback_policy: RollbackPolicy = field(default_factory=RollbackPolicy)
    control: ControlRules = field(default_factory=ControlRules)
    max_digest_age_us: int = 1_000_000
    max_digest_skew_us: int = 100_000
    telemetry_buffer_capacity: int = 1024
    audit_queue_capacity: int = 4096
    auto_promote: bool = False

    def __post_init__(self) -> None:
        require_positive(learning_rate=self.learning_rate, perturbation_scale=self.perturbation_scale)
        require_count(
            max_digest_age_us=self.max_digest_age_us,
            telemetry_buffer_capacity=self.telemetry_buffer_capacity,
            audit_queue_capacity=self.audit_queue_capacity,
        )
        require(self.max_digest_skew_us >= 0, "max_digest_skew_us", "not negative", self.max_digest_skew_us)
        # From plus to minus the workers see twice the probe at once.
        jump, largest = 2 * self.perturbation_scale, self.guardrails.max_delta_per_step
        require(jump <= largest, "perturbation_scale", f"at most half of max_delta_per_step ({largest})", jump / 2)

    @classmethod
    def for_fleet(cls, seed: int = 42) -> "AdaptiveEngineConfig":
        """One digest every 10 s, cycles of about 130 s, and limits that match."""
        return cls(
            spsa=SpsaConfig(eval_window_us=120_000_000, settle_time_us=15_000_000),
            guardrails=replace(Guardrails.preset_conservative(), max_cumulative_delta_per_hour=0.25),
            seed=seed,
            perturbation_scale=0.025,
            rollback_policy=RollbackPolicy.preset_conservative(),
            control=ControlRules(flip_hysteresis=0.05, flip_window_us=20 * 130_000_000),
            max_digest_age_us=60_000_000,
            max_digest_skew_us=5_000_000,
        )
