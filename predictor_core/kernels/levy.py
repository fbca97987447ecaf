"""Kernel C: an Ito-Levy process around the last value. Mean reversion, a ladder of volatilities, jumps and atoms.

drift       two readouts: one forgets within 30 ticks (height, tanh of the move), one hardly ever; the slow one also
            sees the ladder's logarithms, so that its drift and its deviation follow the volatility
jumps       moves beyond JUMP deviations: how often, their mean and their size
stiffness   S = 100 kappa max(1, turbulence), kappa the rate of reversion per tick: at 100 an explicit step lands on
            the mean, from 200 on it overshoots. The drift is taken explicitly below theta_L, implicitly from
            theta_H on, mixed between; rough paths lower both.
tracker     quantiles of the next move in each of four situations: the last move was down, up, or nothing after a
            move down or up. It sees ties, bounces between bid and ask, and tails that no density shows.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..lanes import column, real_of, running_max, running_mean, spread, total
from ..levels import LEVELS, NORMAL
from .base import (
    BRISK,
    LOCAL,
    QUICK,
    SKEWED,
    SMOOTH,
    Expert,
    Forecast,
    Readout,
    View,
    cold_readout,
    forecast,
    learn_readout,
)  # fmt: skip

NAME, BRIEF = "C", "C-brief"
EXPERTS = (
    *(Expert(None, volatility) for volatility in (BRISK, SMOOTH, QUICK, SKEWED)),
    Expert(NAME, LOCAL),
    Expert(NAME, QUICK),
    Expert(BRIEF, QUICK),
)
SITUATIONS = 4
SLOW, FAST = 0.9995, 0.97  # forgetting of the two readouts
ENERGY_RATES = (0.03, 0.01)  # beside volatility_alpha
JUMP, JUMP_RATE, JUMP_SHARE_MAX = 4.0, 0.002, 0.2
STIFF_LOW, STIFF_HIGH, ROUGHNESS_GUARD = 100.0, 1000.0, 1e-3


class Levy(eqx.Module):
    slow: Readout
    brief: Readout
    energies: Array  # (3,) mean squared moves over fast, middle and slow memories, in units
    jumps: Array  # (3,) their rate, their mean, their mean square, in units
    tracked: Array  # (situations, levels), in units
    sign: Array  # of the last move
    turn: Array  # of the last move that was one


class Scheme(NamedTuple):
    """How the drift's step is taken."""

    stiffness: Any
    implicit_share: Any
    jump_probability: Any


def cold(shapes: Any, lanes: tuple[int, ...]) -> Levy:
    real = real_of(shapes)
    zero = spread(0.0, lanes, real)
    return Levy(
        slow=cold_readout(7, lanes, real),
        brief=cold_readout(3, lanes, real),
        energies=spread([0.0] * 3, lanes, real),
        jumps=spread([-1.0, 0.0, 0.0], lanes, real),
        tracked=spread(np.tile(NORMAL, (SITUATIONS, 1)), lanes, real),
        sign=zero,
        turn=zero,
    )


def learn(state: Levy, target: Array, age: Array, params: Any) -> Levy:
    sign, count = jnp.sign(target), jnp.maximum(age, 1.0)
    rates = (jnp.asarray(params.volatility_alpha, target.dtype), *ENERGY_RATES)
    square = jnp.minimum(target * target, 900.0)
    energies = [running_mean(state.energies[i], square, rate, count) for i, rate in enumerate(rates)]
    return Levy(
        slow=learn_readout(state.slow, target, age, SLOW),
        brief=learn_readout(state.brief, target, age, FAST),
        energies=jnp.stack(energies),
        jumps=_learn_jumps(state, target, count, params),
        tracked=_track(state, target, age),
        sign=sign,
        turn=jnp.where(sign != 0, sign, state.turn),
    )


def _learn_jumps(state: Levy, target: Array, count: Array, params: Any) -> Array:
    """Rate by every move; mean and size by the last kernel_c_jump_max_events jumps or so."""
    real = target.dtype
    start = [params.kernel_c_jump_intensity, params.kernel_c_jump_mean, params.kernel_c_jump_scale**2]
    new = state.jumps[0] < 0
    rate, mean, square = (jnp.where(new, jnp.asarray(s, real), j) for s, j in zip(start, state.jumps, strict=True))
    deviation = jnp.sqrt(state.energies[2])
    jumped = (abs(target) > JUMP * deviation) & (deviation > 0) & (count > 50)
    pace = (1 / (1.0 + params.kernel_c_jump_max_events)).astype(real)
    size = jnp.clip(target, -30.0, 30.0)
    return jnp.stack([
        rate + JUMP_RATE * (jumped - rate),
        jnp.where(jumped, mean + pace * (size - mean), mean),
        jnp.where(jumped, square + pace * (size * size - square), square),
    ])  # fmt: skip


def _track(state: Levy, target: Array, age: Array) -> Array:
    """Moves the quantiles of the situation that the target was drawn in."""
    step = 2 * jnp.maximum(0.01, 1 / (age / 4 + 10))
    below = (target < state.tracked).astype(target.dtype)
    push = step * (column(LEVELS, target)[None] - below)
    return state.tracked + jnp.where(_situation(state)[:, None], push, 0.0)


def _situation(state: Levy) -> Array:
    sign, turn = state.sign, state.turn
    return jnp.stack([sign < 0, (sign == 0) & (turn <= 0), (sign == 0) & (turn > 0), sign > 0])


def tracked_quantiles(state: Levy) -> Array:
    """The law of the next move, in units."""
    return running_max(total(jnp.where(_situation(state)[:, None], state.tracked, 0.0)))


def turbulence(state: Levy) -> Array:
    """Fast over slow volatility, less one, between nought and two."""
    ratio = jnp.sqrt(state.energies[0] / jnp.maximum(state.energies[2], 1e-12))
    return jnp.clip(ratio - 1, 0.0, 2.0)


def predict(state: Levy, view: View, holder: Array) -> tuple[Levy, tuple[Forecast, Forecast], Scheme]:
    move, height = view.moves[0], view.heights[0]
    one, bent = jnp.ones_like(move), jnp.tanh(move)
    logs = 0.5 * jnp.log(state.energies + 1e-3)
    shock = jnp.tanh(-move / jnp.sqrt(state.energies[1] + 1e-3))
    ladder = [one, logs[0] - logs[1], logs[1], logs[2] - logs[1], shock, height, jnp.tanh(abs(move))]
    slow, steady = forecast(state.slow, jnp.stack(ladder))
    brief, quick = forecast(state.brief, jnp.stack([one, height, bent]))
    scheme = _scheme(state, brief.weights[1], holder)
    # An implicit step of the same drift is shorter by 1 + kappa.
    shrink = 1 - scheme.implicit_share * (1 - 1 / (1 + scheme.stiffness / 100))
    quick = Forecast(quick.mean * shrink, quick.deviation)
    state = eqx.tree_at(lambda s: (s.slow, s.brief), state, (slow, brief))
    return state, (steady, quick), scheme


def _scheme(state: Levy, slope: Array, holder: Array) -> Scheme:
    stiffness = 100 * jnp.maximum(0.0, -slope) * jnp.maximum(1.0, 1 + turbulence(state))
    gap = jnp.maximum(1 - holder, ROUGHNESS_GUARD)
    lowered = jnp.minimum(1.0, 0.25 / (gap * gap))
    low, high = STIFF_LOW * lowered, STIFF_HIGH * lowered
    return Scheme(
        stiffness=stiffness,
        implicit_share=jnp.clip((stiffness - low) / (high - low), 0.0, 1.0),
        jump_probability=jnp.clip(state.jumps[0], 0.0, JUMP_SHARE_MAX),
    )
