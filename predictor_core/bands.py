"""Quantiles that keep their promise: adaptive conformal levels on the fused law, then interpolation.

Each level is moved until the share of values below its quantile is what it says. A value on an atom of the law counts
as the fraction of the atom that the level splits off.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from . import lattice
from .lanes import column, real_of, running_max, spread
from .levels import LEVELS, NORMAL

RATE, WARM_UP = 0.001, 50
TAIL = 40.0  # slope beyond the outer levels, in spans of the outer three per unit of level


class Bands(eqx.Module):
    quantiles: Array  # of the next move, at LEVELS, calibrated
    levels: Array  # where the fused law is read


def cold(shapes: Any, lanes: tuple[int, ...]) -> Bands:
    real = real_of(shapes)
    return Bands(spread(NORMAL, lanes, real), spread(LEVELS, lanes, real))


def learn(bands: Bands, move: Array, tolerance: Array, age: Array, rate: Array | float = RATE) -> Bands:
    wanted = column(LEVELS, move)
    moved = bands.levels + jnp.asarray(rate, move.dtype) * (wanted - _hits(bands.quantiles, wanted, move, tolerance))
    return Bands(bands.quantiles, jnp.where(age < WARM_UP, bands.levels, jnp.clip(moved, -0.02, 1.02)))


def _hits(quantiles: Array, wanted: Array, move: Array, tolerance: Array) -> Array:
    """One where the value fell below the quantile, a fraction where it fell on it."""
    below = jnp.where(quantiles < move - tolerance, wanted, 0.0).max(0)
    above = jnp.where(quantiles > move + tolerance, wanted, 1.0).min(0)
    share = (wanted - below) / jnp.maximum(above - below, 1e-6)
    return jnp.where(abs(move - quantiles) <= tolerance, share, (move < quantiles).astype(move.dtype))


def calibrate(bands: Bands, fused: Array, grid: lattice.Lattice, unit: Array) -> Bands:
    """Reads the fused law at the calibrated levels."""
    quantiles = read(fused, running_max(bands.levels))
    return Bands(lattice.snap(grid, quantiles, unit), bands.levels)


def read(law: Array, levels: Array) -> Array:
    """Quantiles of a law at any levels: linear between LEVELS, and straight on beyond them."""
    low, high = float(LEVELS[0]), float(LEVELS[-1])
    inside = law[0]
    for knot, span in enumerate(np.diff(LEVELS)):
        travelled = jnp.clip((levels - float(LEVELS[knot])) * float(1 / span), 0.0, 1.0)
        inside = inside + travelled * (law[knot + 1] - law[knot])
    left = jnp.minimum(levels - low, 0.0) * TAIL * (law[2] - law[0])
    right = jnp.maximum(levels - high, 0.0) * TAIL * (law[-1] - law[-3])
    return inside + left + right


def at_levels(law: Array, levels: Sequence[float]) -> Array:
    """Quantiles of a law at fixed levels; at LEVELS it is the law itself."""
    if len(levels) == len(LEVELS) and np.allclose(levels, LEVELS, rtol=0, atol=1e-12):
        return law
    return jnp.stack([_at(law, level) for level in levels])


def _at(law: Array, level: float) -> Array:
    """As `read`, with the place known beforehand."""
    last = len(LEVELS) - 1
    if level < LEVELS[0]:
        return law[0] - float(LEVELS[0] - level) * TAIL * (law[2] - law[0])
    if level > LEVELS[-1]:
        return law[-1] + float(level - LEVELS[-1]) * TAIL * (law[-1] - law[-3])
    knot = min(int(np.searchsorted(LEVELS, level + 1e-12, "right")) - 1, last - 1)
    share = float((level - LEVELS[knot]) / (LEVELS[knot + 1] - LEVELS[knot]))
    return law[knot] + (share * (law[knot + 1] - law[knot]) if share > 1e-9 else 0.0)
