"""The price lattice: prices that come in steps of one size, where a quantile between two steps is never right.

The step is the smallest move seen, and may grow by a trifle at each move, never with time alone: on the logarithm of
a price it drifts, and in a quiet spell it must not wander.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import Array

from .lanes import real_of, running_mean, spread

GROWTH = 1.002
TIES_MIN, MISFIT_MAX, STEP_MIN = 0.05, 0.1, 0.05


class Lattice(eqx.Module):
    step: Array
    ties: Array  # share of moves that are none
    misfit: Array  # how far moves lie from whole steps


def cold(shapes: Any, lanes: tuple[int, ...]) -> Lattice:
    real = real_of(shapes)
    return Lattice(spread(1e30, lanes, real), spread(0.0, lanes, real), spread(1.0, lanes, real))


def update(lattice: Lattice, move: Array, age: Array) -> Lattice:
    moved = (age > 0.5) & (move != 0)
    steps = abs(move) / lattice.step
    off = abs(steps - jnp.round(steps)) / jnp.maximum(1.0, 0.03 * steps)
    misfit = jnp.minimum(off + (steps < 0.5), 1.0)
    tie = (move == 0).astype(move.dtype)
    ties = running_mean(lattice.ties, tie, 0.01, jnp.maximum(age, 1.0))
    return Lattice(
        step=jnp.where(moved, jnp.minimum(lattice.step * GROWTH, abs(move)), lattice.step),
        ties=jnp.where(age > 0.5, ties, lattice.ties),
        misfit=jnp.where(moved, lattice.misfit + 0.02 * (misfit - lattice.misfit), lattice.misfit),
    )


def is_on(lattice: Lattice, unit: Array) -> Array:
    return (lattice.ties > TIES_MIN) & (lattice.misfit < MISFIT_MAX) & (lattice.step > STEP_MIN * unit)


def snap(lattice: Lattice, moves: Array, unit: Array) -> Array:
    """Rounds moves to whole steps where there is a lattice."""
    return jnp.where(is_on(lattice, unit), jnp.round(moves / lattice.step) * lattice.step, moves)


def tolerance(lattice: Lattice, unit: Array) -> Array:
    """How near two moves are one and the same."""
    return jnp.where(is_on(lattice, unit), 0.25 * lattice.step, 1e-5 * unit)
