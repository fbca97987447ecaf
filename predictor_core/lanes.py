"""Arrays with features first and lanes last: one asset has no lane axis, a block of assets has one."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def column(values: Any, like: Array) -> Array:
    """A constant over features in the precision of `like`, ready to meet arrays with its lanes."""
    fixed = np.asarray(values)
    return jnp.asarray(fixed.reshape(fixed.shape + (1,) * like.ndim), like.dtype)


def spread(values: Any, lanes: tuple[int, ...], dtype: Any) -> Any:
    """The same start for every lane: a NumPy array, standing in for the Array that the first tick makes of it."""
    fixed = np.asarray(values)
    return np.broadcast_to(fixed.reshape(fixed.shape + (1,) * len(lanes)), fixed.shape + lanes).astype(dtype)


def real_of(shapes: Any) -> type:
    return np.float32 if shapes.float_precision == 32 else np.float64


def running_mean(mean: Array, value: Array, rate: float | Array, count: Array) -> Array:
    """Moves a mean by `rate`, faster while few values have been seen, so that no start value lingers."""
    return mean + jnp.maximum(rate, 1 / count) * (value - mean)


def fold(combine: Callable[[Array, Array], Array], values: Array, axis: int = 0) -> Array:
    """Combines values over a feature axis, always in the same order, by whole rows of lanes.

    XLA's own reductions over a leading axis are several times slower, and how they add up is their own affair.
    """
    parts = [lax.index_in_dim(values, index, axis, keepdims=False) for index in range(values.shape[axis])]
    return functools.reduce(combine, parts)


def total(values: Array, axis: int = 0) -> Array:
    return fold(jnp.add, values, axis)


def fold_long(combine: Callable[[Array, Array], Array], values: Array) -> Array:
    """The same for hundreds of values: first by pieces, then within the piece."""
    size = values.shape[0]
    piece = max(1, round(size**0.5))
    whole = size - size % piece
    pieces = functools.reduce(combine, [values[start : start + piece] for start in range(0, whole, piece)])
    rest = [values[index] for index in range(whole, size)]
    return functools.reduce(combine, rest, fold(combine, lax.optimization_barrier(pieces)))


def running_max(values: Array) -> Array:
    """Makes a sequence over features rise."""
    step = 1
    while step < values.shape[0]:
        values = jnp.concatenate([values[:step], jnp.maximum(values[step:], values[:-step])], 0)
        step *= 2
    return values
