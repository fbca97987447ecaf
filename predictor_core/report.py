"""What a tick tells besides its forecast: events, operating mode, telemetry."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from .cusum import Alarm
from .entropy import Finding
from .gates import Verdict
from .kernels.galerkin import Field
from .kernels.levy import Scheme
from .orchestrator import Step
from .result import Event, OperatingMode, Telemetry
from .roughness import Reading
from .spectrum import Modes
from .wtmm import Spectrum


class Senses(NamedTuple):
    """All that was noticed at a tick."""

    alarm: Alarm
    reading: Reading
    holders: Spectrum
    step: Step
    turbulence: Any
    scheme: Scheme | Any = None
    modes: Modes | Any = None
    field: Field | Any = None
    finding: Finding | Any = None
    weights: Any = None  # (4,) as published


def events(verdict: Verdict, senses: Senses) -> Array:
    """Bits of Event. A tick that was far out has nothing to say about the regime."""
    learnt = verdict.learn
    happened = {
        Event.DomainError: verdict.domain_error,
        Event.OutlierDetected: verdict.outlier,
        Event.StalenessWarning: verdict.stale,
        Event.FrequencyWarning: verdict.sparse,
        Event.FrozenSignal: verdict.frozen,
        Event.ModeDegradationAlert: learnt & senses.finding.degraded,
        Event.KurtosisOutlierWarning: learnt & senses.alarm.kurtosis_warning,
        Event.NormalOperationRestoredEvent: verdict.restored,
        Event.RegimeChangeDetected: learnt & senses.alarm.alarm,
        Event.EmergencyMode: learnt & senses.reading.emergency,
        Event.Reanchored: verdict.reanchored,
        Event.DegradedInference: verdict.degraded,
        Event.ModeCollapseWarning: learnt & senses.finding.collapsed,
        Event.GracePeriod: senses.alarm.grace > 0,
    }
    bits = jnp.zeros_like(verdict.rejected, jnp.uint32)
    for event, flag in happened.items():
        bits = bits | jnp.where(flag, jnp.uint32(int(event)), jnp.uint32(0))
    return bits


def operating_mode(verdict: Verdict, senses: Senses) -> Array:
    careful = jnp.where(verdict.degraded, OperatingMode.CALIBRATION, OperatingMode.INFERENCE)
    return jnp.where(senses.reading.emergency, OperatingMode.DIAGNOSTIC, careful).astype(jnp.int32)


def telemetry(verdict: Verdict, senses: Senses) -> Telemetry:
    alarm, reading, step, finding = senses.alarm, senses.reading, senses.step, senses.finding
    leaves = Telemetry(
        holder_exponent=reading.holder,
        holder_raw=reading.raw,
        cusum_drift=alarm.drift_up,
        cusum_drift_down=alarm.drift_down,
        cusum_scale=alarm.drift_scale,
        adaptive_threshold=alarm.threshold,
        distance_to_collapse=alarm.threshold - alarm.drift_up,
        kurtosis=alarm.kurtosis,
        sigma=alarm.sigma,
        free_energy=step.free_energy,
        transport_cost=step.transport_cost,
        sinkhorn_epsilon=step.epsilon,
        sinkhorn_converged=step.converged,
        dgm_entropy=finding.entropy,
        entropy_ratio=finding.ratio,
        viscosity_residual=senses.field.residual,
        stiffness=senses.scheme.stiffness,
        implicit_share=senses.scheme.implicit_share,
        jump_probability=senses.scheme.jump_probability,
        paley_wiener=senses.modes.paley_wiener,
        koopman_frequency=senses.modes.frequency,
        koopman_power=senses.modes.power,
        spectrum_width=senses.holders.width,
        wtmm_holder=senses.holders.holder,
        variance_ratio=reading.variance_ratio,
        autocorrelation=reading.autocorrelation,
        grace_counter=alarm.grace,
        degraded_inference_mode=verdict.degraded,
        emergency_mode=verdict.learn & reading.emergency,
        regime_change_detected=verdict.learn & alarm.alarm,
        mode_collapse_warning=verdict.learn & finding.collapsed,
        weights=senses.weights,
    )
    return Telemetry(*(jnp.asarray(leaf).astype(jnp.float32) for leaf in leaves))
