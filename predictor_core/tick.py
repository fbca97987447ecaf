"""One tick of one asset, or of a block of assets at once: gate, score, detect, identify, reweigh, learn, predict.

Pure. What came is first judged by the forecasts that were out, and only then learned from.

    rejected      nothing changes and no forecast is made
    far out       only the gates remember it; the last forecast stands
    degraded      everything learns but the weights of the kernels, which stand still
    emergency     the weights that are published are forced to kernel D; it speaks alone if it leads by its record too
    alarm         the weights start again from uniform, with half of the evidence
    pruned        kernels A and B stand still and have no weight
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, lax

from . import (
    bands,
    cusum,
    entropy,
    experts,
    gates,
    lattice,
    memory,
    orchestrator,
    pruning,
    residuals,
    roughness,
    scale,
    spectrum,
    wtmm,
)  # fmt: skip
from .config import Params, Shapes
from .kernels import NAMES, base, galerkin, hilbert, levy, signature
from .kernels.analogs import analogs
from .lanes import real_of, settled
from .levels import MIDDLE
from .observation import Observation
from .report import Senses, events, operating_mode, telemetry
from .result import Output, RejectReason
from .state import PredictorState

KERNEL_B, KERNEL_D = NAMES.index("B"), NAMES.index("D")


class Tick(NamedTuple):
    """A move as all parts are told of it."""

    move: Any
    target: Any  # the move in the unit that was known before it
    age: Any  # moves seen, with this one
    tolerance: Any  # how near two moves are one


def tick(
    state: PredictorState,
    observation: Observation,
    params: Params,
    shapes: Shapes,
    pruned: Array | bool = False,
    live: Array | bool = True,
) -> tuple[PredictorState, Output]:
    """Takes one value in and forecasts the next. `pruned` is one number for all lanes.

    A lane that is not live keeps its state, and what comes out for it means nothing.
    """
    distance = jnp.clip(observation.value - state.level, -scale.FAR, scale.FAR).astype(real_of(shapes))
    gate, verdict = gates.update(state.gates, observation, distance, params)
    verdict = verdict._replace(rejected=settled(verdict.rejected))
    now = _measure(state, jnp.where(state.ticks > 0, distance, 0.0))

    laws = _laws(state)
    state_with_weights, senses = _detect(state, now, laws, verdict, params, shapes)
    learnt = _learn(state_with_weights, now, params, pruned)
    new, senses = _predict(learnt, now, senses, params, shapes, pruned)

    new = eqx.tree_at(lambda s: (s.level, s.ticks), new, (observation.value, jnp.minimum(state.ticks + 1, 1 << 30)))
    accepted = settled((verdict.rejected == RejectReason.accepted) & live)
    new = select(settled(accepted & verdict.learn), new, state)
    new = eqx.tree_at(lambda s: s.gates, new, select(accepted, gate, state.gates))
    return new, _output(new, verdict, senses, shapes)


def select(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(condition, a, b), yes, no)


def _measure(state: PredictorState, move: Array) -> Tick:
    unit = scale.unit(state.scale, move)
    return settled(Tick(move, move / unit, state.ticks.astype(move.dtype), lattice.tolerance(state.lattice, unit)))


def _laws(state: PredictorState) -> experts.Laws:
    return experts.laws(state.residuals, state.levy, state.scale, state.lattice, state.orchestrator.expert_weights)


def _detect(
    state: PredictorState, now: Tick, laws: experts.Laws, verdict: gates.Verdict, params: Params, shapes: Shapes
) -> tuple[PredictorState, Senses]:
    """Scores what was out, listens for alarms, measures the roughness, and takes the weights one step."""
    count = jnp.maximum(now.age, 1.0)
    weights, judgement = orchestrator.judge(state.orchestrator, laws, now.move, now.tolerance, count)
    alarms, alarm = cusum.update(state.cusum, now.move - judgement.fused[MIDDLE], params)
    rough, reading = roughness.update(state.roughness, now.target, params)
    maxima, holders = wtmm.update(state.wtmm, now.target)

    turbulence = levy.turbulence(state.levy)
    weights, step = orchestrator.step(weights, judgement, turbulence, params, shapes.sinkhorn_cost_type)
    weights = select(alarm.alarm, orchestrator.reset(weights), weights)
    weights = select(verdict.reweigh & (now.age > 1.5), weights, state.orchestrator)
    # The first tick has no move to sense, the second no forecast with a scale to judge.
    sensed = select(now.age > 0.5, (alarms, rough, maxima), (state.cusum, state.roughness, state.wtmm))
    changed = eqx.tree_at(lambda s: (s.cusum, s.roughness, s.wtmm, s.orchestrator), state, (*sensed, weights))
    return changed, Senses(alarm=alarm, reading=reading, holders=holders, step=step, turbulence=turbulence)


def _learn(state: PredictorState, now: Tick, params: Params, pruned: Array | bool) -> PredictorState:
    """Teaches every part what the move was."""
    moved = now.age > 0.5
    errors = residuals.learn(state.residuals, now.move, scale.outlier_bound(state.scale, now.age), now.age)
    tracker = levy.learn(state.levy, now.target, now.age, params)
    band = bands.learn(state.bands, now.move, now.tolerance, now.age, params.calibration_rate)
    errors, tracker, band = select(moved, (errors, tracker, band), (state.residuals, state.levy, state.bands))
    readouts = _learn_readouts(state, now, params, pruned)
    return eqx.tree_at(
        lambda s: (
            s.residuals, s.levy, s.bands, s.hilbert.readout, s.galerkin.readout, s.signature.readout, s.scale, s.lattice
        ),
        state,
        (
            errors, tracker, band, *readouts,
            scale.update(state.scale, now.move, now.age, params.scale_rate),
            lattice.update(state.lattice, now.move, now.age),
        ),
    )  # fmt: skip


def _learn_readouts(
    state: PredictorState, now: Tick, params: Params, pruned: Array | bool
) -> tuple[base.Readout, base.Readout, base.Readout]:
    """Of kernels A, B and D."""
    a, b, d = state.hilbert.readout, state.galerkin.readout, state.signature.readout

    def learnt(readout: base.Readout) -> base.Readout:
        return base.learn_readout(readout, now.target, now.age, params.readout_forgetting)

    a, b = lax.cond(pruned, lambda: (a, b), lambda: (learnt(a), learnt(b)))
    return a, b, learnt(d)


def _predict(
    state: PredictorState, now: Tick, senses: Senses, params: Params, shapes: Shapes, pruned: Array | bool
) -> tuple[PredictorState, Senses]:
    """Lets the kernels speak, and fuses and calibrates what they say."""
    unit = scale.unit(state.scale)
    past = memory.push(state.memory, now.move / unit)
    moves, view = settled((memory.moves(past, now.move.dtype), scale.view(state.scale)))
    (a, forecast_a), (b, forecast_b, field) = lax.cond(
        pruned,
        lambda: (hilbert.rest(state.hilbert, view), galerkin.rest(state.galerkin)),
        lambda: (hilbert.predict(state.hilbert, view, settled(analogs(moves))), _b(state, view)),
    )
    c, forecasts_c, scheme = levy.predict(state.levy, view, senses.reading.holder)
    d, forecast_d = signature.predict(state.signature, view, shapes.log_sig_depth)
    errors = residuals.publish(state.residuals, [forecast_a, forecast_b, *forecasts_c, forecast_d], unit)

    resonators = hilbert.turn(state.hilbert.modes, view.moves[0])  # again: what leaves a branch may round otherwise
    heard, modes = spectrum.update(state.spectrum, resonators, now.age, params, shapes)
    weight_b = state.orchestrator.weights[KERNEL_B]
    mind, finding = entropy.update(state.entropy, field.values, field.terminal, senses.turbulence, weight_b, params)

    state = eqx.tree_at(
        lambda s: (s.memory, s.hilbert, s.galerkin, s.levy, s.signature, s.residuals, s.spectrum, s.entropy),
        state,
        (past, a, b, c, d, errors, heard, mind),
    )
    weights = orchestrator.drained(state.orchestrator.weights, KERNEL_B, finding.collapsed)
    alone = orchestrator.forced(weights, KERNEL_D)
    emergency = senses.reading.emergency & (params.robustness_force_kernel_d > 0)
    speaking = jnp.where(emergency & orchestrator.leads(weights, KERNEL_D), alone, weights)
    law = orchestrator.fuse(settled(pruning.remaining(speaking, pruned)), _laws(state))
    state = eqx.tree_at(lambda s: s.bands, state, bands.calibrate(state.bands, law, state.lattice, unit))
    told = pruning.remaining(jnp.where(emergency, alone, weights), pruned)
    return state, senses._replace(scheme=scheme, modes=modes, field=field, finding=finding, weights=told)


def _b(state: PredictorState, view: base.View) -> tuple[galerkin.Galerkin, base.Forecast, galerkin.Field]:
    """Kernel B's forecast, and its network a step nearer to the equation."""
    b, answer = galerkin.predict(state.galerkin, view)
    b, field = galerkin.relax(b, scale.pace_in_heights(state.scale), state.entropy.collapsed > 0)
    return b, answer, field


def _output(state: PredictorState, verdict: gates.Verdict, senses: Senses, shapes: Shapes) -> Output:
    law, tail = state.bands.quantiles, (1 - shapes.confidence_level) / 2
    lower, middle, upper = bands.at_levels(law, (tail, 0.5, 1 - tail)).astype(jnp.float64)
    return Output(
        rejected=verdict.rejected,
        reference_prediction=state.level + middle,
        confidence_lower=state.level + lower,
        confidence_upper=state.level + upper,
        quantiles=state.level + bands.at_levels(law, shapes.quantile_levels).astype(jnp.float64),
        operating_mode=operating_mode(verdict, senses),
        events=events(verdict, senses),
        telemetry=telemetry(verdict, senses),
    )
