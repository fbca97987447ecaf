"""Kernel B: the generator of the level's diffusion, by Galerkin on bumps over its height.

    L = b(x) d/dx + D(x) / 2 d2/dx2         b, D: the mean and the mean square of the next move where the level stands

b and ln D are linear in the bumps and learnt as one readout. The backward equation V_t + L V = 0 with V(T, x) = x,
whose solution is the mean at the horizon, is solved by name as well: a network

    V(t, x) = x + (T - t) sum_i w_i tanh(a_i x + c_i t + b_i)

with fixed inner weights, so that its end is exact and its residual linear in w. Each tick takes one normalised step on
fixed points. The residual says how well b and D hold together, the field's entropy whether anything is left to say.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..lanes import column, real_of, settled, spread, summed, total
from .base import LOCAL, NULL, QUICK, Expert, Forecast, Readout, View, cold_readout, forecast, silent

NAME = "B"
EXPERTS = (Expert(NAME, QUICK), Expert(NAME, LOCAL), NULL)

CENTRES = np.linspace(-3, 3, 11)
SIZE = len(CENTRES) + 2

UNITS = 8
POINTS = np.linspace(-2.5, 2.5, 8)  # where the residual is taken, at both times
TIMES = (0.0, 0.5)
FIELD = np.linspace(-2.5, 2.5, 24)  # where the field is looked at, at time 0
STEP, STEP_MAX = 0.5, 10.0

_generator = np.random.default_rng(1)
SLOPES, SPEEDS = _generator.uniform(0.5, 1.5, UNITS), _generator.normal(0, 0.5, UNITS)
BIASES = np.linspace(-2, 2, UNITS)


class Galerkin(eqx.Module):
    readout: Readout
    network: Array  # (units,) outer weights


class Field(NamedTuple):
    values: Any  # V(0, x) at FIELD
    terminal: Any  # V(T, x) = x
    residual: Any  # root mean square of the backward equation's residual


def cold(shapes: Any, lanes: tuple[int, ...]) -> Galerkin:
    real = real_of(shapes)
    return Galerkin(cold_readout(SIZE, lanes, real), spread(np.zeros(UNITS), lanes, real))


def predict(state: Galerkin, view: View) -> tuple[Galerkin, Forecast]:
    features = jnp.concatenate([bumps(view.heights[0]), view.moves[:1], view.heights[:1]], 0)
    readout, answer = forecast(state.readout, features)
    return eqx.tree_at(lambda s: s.readout, state, readout), answer


def bumps(height: Array) -> Array:
    """Gaussian bumps as wide as their spacing, normalised to share one."""
    spacing = float(CENTRES[1] - CENTRES[0])
    raw = jnp.exp(-0.5 * ((height[None] - column(CENTRES, height)) / spacing) ** 2)
    return raw / (total(raw) + 1e-9)


def relax(state: Galerkin, pace: Array, collapsed: Array) -> tuple[Galerkin, Field]:
    """One step of the network towards the equation; `pace` is a unit of move in units of height."""
    drift, diffusion = settled(_coefficients(state.readout, pace))
    residual, gradient = _residuals(state.network, drift, diffusion)
    norm = total(summed(summed(gradient * gradient))) + 1e-6
    step = STEP * settled(summed(summed(residual[:, :, None] * gradient))) / norm
    network = state.network - jnp.clip(step, -STEP_MAX, STEP_MAX)
    network = jnp.where(collapsed, 0.0, network)  # sown anew
    size = jnp.sqrt(total(summed(residual * residual)) / (len(TIMES) * len(POINTS)))
    return eqx.tree_at(lambda s: s.network, state, network), _field(network, size)


def rest(state: Galerkin) -> tuple[Galerkin, Forecast, Field]:
    """Stands still; the residual of the field is not taken."""
    readout, answer = silent(state.readout)
    field = _field(state.network, jnp.full_like(readout.error, jnp.nan))
    return eqx.tree_at(lambda s: s.readout, state, readout), answer, field


def _field(network: Array, residual: Array) -> Field:
    values = column(FIELD, residual) + settled(summed(network[None] * column(_units(FIELD, 0.0)[0], residual), 1))
    return Field(values, jnp.broadcast_to(column(FIELD, residual), values.shape), residual)


def _coefficients(readout: Readout, pace: Array) -> tuple[Array, Array]:
    """b and D at the points, in heights per tick."""
    raw = np.exp(-0.5 * ((POINTS[:, None] - CENTRES) / (CENTRES[1] - CENTRES[0])) ** 2)
    features = np.concatenate([raw / raw.sum(1, keepdims=True), np.zeros((len(POINTS), 1)), POINTS[:, None]], 1)
    table = column(features, pace)
    drift = jnp.clip(summed(table * readout.weights[None], 1), -10.0, 10.0) * pace
    log_size = jnp.clip(summed(table * readout.log_weights[None], 1), -6.0, 2.0)
    return drift, jnp.exp(2 * log_size) * readout.excess * pace * pace


def _residuals(network: Array, drift: Array, diffusion: Array) -> tuple[Array, Array]:
    """V_t + b V_x + D V_xx / 2 at every time and point, and its gradient in the outer weights."""
    tables = zip(*(_units(POINTS, time) for time in TIMES), strict=True)
    value, rate, slope, bend = (column(np.stack(table), drift[0]) for table in tables)
    left = column(1 - np.array(TIMES)[:, None, None], drift[0])
    gradient = settled(-value + left * (rate + drift[:, None] * slope + 0.5 * diffusion[:, None] * bend))
    return settled(drift + summed(gradient * network, 2)), gradient


def _units(points: np.ndarray, time: float) -> tuple[np.ndarray, ...]:
    """tanh of each unit at each point, and its derivatives in t, in x, and twice in x."""
    value = np.tanh(points[:, None] * SLOPES + SPEEDS * time + BIASES)
    open_ = 1 - value * value
    return value, SPEEDS * open_, SLOPES * open_, -2 * SLOPES**2 * value * open_
