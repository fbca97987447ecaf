"""Quantiles that keep their promise: adaptive conformal levels on the fused law, then interpolation.

Each level is moved until the share of values below its quantile is what it says. A value on an atom of the law counts
as the fraction of the atom that the level splits off.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from . import lattice
from .lanes import column, fold, real_of, running_max, spread, total
from .levels import LEVELS, NORMAL

RATE, WARM_UP = 0.001, 50
TAIL = 40.0  # slope beyond the outer levels, in spans of the outer three per unit of level


class Bands(eqx.Module):
    quantiles: Array  # of the next move, at LEVELS, calibrated
    levels: Array  # where the fused law is read


def cold(shapes: Any, lanes: tuple[int, ...]) -> Bands:
    real = real_of(shapes)
    return Bands(spread(NORMAL, lanes, real), spread(LEVELS, lanes, real))


def learn(bands: Bands, move: Array, tolerance: Array, age: Array) -> Bands:
    wanted = column(LEVELS, move)
    moved = bands.levels + RATE * (wanted - _hits(bands.quantiles, wanted, move, tolerance))
    return Bands(bands.quantiles, jnp.where(age < WARM_UP, bands.levels, jnp.clip(moved, -0.02, 1.02)))


def _hits(quantiles: Array, wanted: Array, move: Array, tolerance: Array) -> Array:
    """One where the value fell below the quantile, a fraction where it fell on it."""
    below = fold(jnp.maximum, jnp.where(quantiles < move - tolerance, wanted, 0.0))
    above = fold(jnp.minimum, jnp.where(quantiles > move + tolerance, wanted, 1.0))
    share = (wanted - below) / jnp.maximum(above - below, 1e-6)
    return jnp.where(abs(move - quantiles) <= tolerance, share, (move < quantiles).astype(move.dtype))


def calibrate(bands: Bands, fused: Array, grid: lattice.Lattice, unit: Array) -> Bands:
    """Reads the fused law at the calibrated levels."""
    quantiles = read(fused, running_max(bands.levels))
    return Bands(lattice.snap(grid, quantiles, unit), bands.levels)


def read(law: Array, levels: Array) -> Array:
    """Quantiles of a law at any levels: linear between LEVELS, and straight on beyond them."""
    low, high = float(LEVELS[0]), float(LEVELS[-1])
    starts, spans = column(LEVELS[:-1], law[0]), column(np.diff(LEVELS), law[0])
    travelled = jnp.clip((levels[:, None] - starts[None]) / spans[None], 0.0, 1.0)
    inside = law[0] + total(travelled * (law[1:] - law[:-1])[None], 1)
    left = jnp.minimum(levels - low, 0.0) * TAIL * (law[2] - law[0])
    right = jnp.maximum(levels - high, 0.0) * TAIL * (law[-1] - law[-3])
    return inside + left + right


def at_levels(law: Array, levels: tuple[float, ...]) -> Array:
    """Quantiles of a law at fixed levels; at LEVELS it is the law itself."""
    if len(levels) == len(LEVELS) and np.allclose(levels, LEVELS, rtol=0, atol=1e-12):
        return law
    return read(law, jnp.broadcast_to(column(levels, law[0]), (len(levels),) + law.shape[1:]))
