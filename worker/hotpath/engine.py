"""The tuner's own configuration, made from the settings and from what the dry run found."""

from dataclasses import dataclass, replace

from scheduler.hotpath import AdaptiveEngineConfig, Guardrails, RollbackPolicy, SpsaConfig
from scheduler.hotpath.control_safety import ControlRules
from worker.settings import HotpathSettings

PROBE_TTL_WINDOWS = 3  # of the time that one side may take: after that a worker goes back to the centre by itself
FLIP_CYCLES = 20
AGE_DIGESTS = 6
HYSTERESIS_PROBES = 2


@dataclass(frozen=True)
class Gains:
    """Probe distance and gain; the dry run finds what the noise allows."""

    learning_rate: float
    perturbation_scale: float


def first_gains(settings: HotpathSettings) -> Gains:
    return Gains(settings.learning_rate, settings.perturbation_scale)


def engine_config(settings: HotpathSettings, gains: Gains) -> AdaptiveEngineConfig:
    guardrails: Guardrails = getattr(Guardrails, f"preset_{settings.preset}")()
    policy: RollbackPolicy = getattr(RollbackPolicy, f"preset_{settings.preset}")()
    side_us = _us(settings.settle_s + settings.digests_per_side * settings.digest_s)
    return AdaptiveEngineConfig(
        spsa=SpsaConfig(
            eval_window_digests=settings.digests_per_side,
            eval_window_us=_us(settings.patience_s),
            settle_time_us=_us(settings.settle_s),
        ),
        guardrails=replace(guardrails, max_cumulative_delta_per_hour=settings.hourly_budget),
        seed=settings.seed,
        learning_rate=gains.learning_rate,
        perturbation_scale=min(gains.perturbation_scale, guardrails.max_delta_per_step / 2),
        rollback_policy=policy,
        control=ControlRules(
            flip_hysteresis=HYSTERESIS_PROBES * gains.perturbation_scale,
            flip_window_us=max(60_000_000, FLIP_CYCLES * 2 * side_us),
        ),
        max_digest_age_us=_us(AGE_DIGESTS * settings.digest_s),
        max_digest_skew_us=5_000_000,
        audit_queue_capacity=settings.audit_max,
        auto_promote=settings.promote,
    )


def probe_ttl_ms(settings: HotpathSettings) -> int:
    return int(1000 * PROBE_TTL_WINDOWS * settings.patience_s)


def _us(seconds: float) -> int:
    return int(seconds * 1e6)
