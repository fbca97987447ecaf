"""Where an asset stands and how far it moves: the only units that the kernels ever see.

The height over the slow mean level is carried as a difference, (1 - rate)(height + move), so no digits of the level
are lost in it.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import Array

from .kernels.base import View
from .lanes import real_of, running_mean, spread

RATE = 0.002
MOVE_MAX, HEIGHT_MAX = 8.0, 4.0
OUTLIER, OUTLIER_AFTER = 30.0, 50  # in units; the moves after which a unit can be trusted to judge one
FAR = 1e18  # moves beyond it would overflow when squared


class Scale(eqx.Module):
    moves: Array  # (3,) newest first
    height: Array
    spread: Array  # mean |height|
    pace: Array  # mean |move|


def cold(shapes: Any, lanes: tuple[int, ...]) -> Scale:
    real = real_of(shapes)
    zero = spread(0.0, lanes, real)
    return Scale(spread([0.0] * 3, lanes, real), zero, zero, zero)


def unit(scale: Scale, first_move: Array | float = 1.0) -> Array:
    """The mean move; before there is one, the first move itself."""
    start = jnp.where(jnp.asarray(first_move) != 0, abs(first_move), 1.0)
    return jnp.where(scale.pace > 0, scale.pace, start.astype(scale.pace.dtype))


def outlier_bound(scale: Scale, age: Array) -> Array:
    """Nothing larger enters an average."""
    return jnp.where(age > OUTLIER_AFTER, OUTLIER * unit(scale), FAR)


def update(scale: Scale, move: Array, age: Array, rate: Array | float = RATE) -> Scale:
    """Takes one move in; `age` counts the moves with it, and is nought at an asset's first tick."""
    moved, rate = age > 0.5, jnp.asarray(rate, move.dtype)
    count = jnp.maximum(age, 1.0)
    capped = jnp.minimum(abs(move), outlier_bound(scale, age))
    height = (1 - jnp.maximum(rate, 1 / (age + 1))) * (scale.height + move)
    return Scale(
        moves=jnp.where(moved, jnp.concatenate([move[None], scale.moves[:-1]], 0), scale.moves),
        height=height,
        spread=running_mean(scale.spread, abs(height), rate, age + 1),
        pace=jnp.where(moved, running_mean(scale.pace, capped, rate, count), scale.pace),
    )


def view(scale: Scale) -> View:
    """The recent past without units."""
    moves, height = scale.moves, scale.height
    heights = jnp.stack([height, height - moves[0], height - moves[0] - moves[1]])
    spread_or_one = jnp.where(scale.spread > 0, scale.spread, 1.0)
    return View(
        heights=jnp.clip(heights / spread_or_one, -HEIGHT_MAX, HEIGHT_MAX),
        moves=jnp.clip(moves / unit(scale), -MOVE_MAX, MOVE_MAX),
    )


def pace_in_heights(scale: Scale) -> Array:
    """One unit of move, measured in mean heights."""
    return unit(scale) / jnp.where(scale.spread > 0, scale.spread, 1.0)
