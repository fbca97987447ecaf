"""Arrays with features first and lanes last: one asset has no lane axis, a block of assets has one."""

import functools
from typing import Any

import jax
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


def summed(values: Array, axis: int = 0) -> Array:
    """A sum written out term by term, for few terms that are computed on the spot.

    Of such a sum XLA on a CPU makes a loop within the loop over the lanes, and no vectors: `total` is for values that
    lie there. But it looks through what is written out, so `settled` belongs around it where many numbers need it.
    """
    return functools.reduce(jnp.add, [lax.index_in_dim(values, i, axis, False) for i in range(values.shape[axis])])


def total(values: Array, axis: int = 0) -> Array:
    """A sum over features, XLA's own: nothing that depends on it computes it anew."""
    return values.sum(axis)


def settled(values: Any) -> Any:
    """The same values, computed once.

    XLA on a CPU would rather compute a cheap value anew for every number that depends on it, and drops its own barrier
    before it decides so. It does not look through a reduction: here, the larger of the value and nothing.
    """
    return jax.tree.map(_settled, values)


def _settled(value: Array) -> Array:
    if value.dtype == jnp.bool_:
        return _settled(value.astype(jnp.int32)) > 0
    rows = value[None] if value.ndim < 2 else value
    least = -jnp.inf if jnp.issubdtype(value.dtype, jnp.floating) else jnp.iinfo(value.dtype).min
    padded = lax.pad(rows, jnp.asarray(least, value.dtype), [(0, rows.shape[0], 0)] + [(0, 0, 0)] * (rows.ndim - 1))
    return padded.reshape((2, *rows.shape)).max(0).reshape(value.shape)


def running_max(values: Array) -> Array:
    """Makes a sequence over features rise."""
    least, step = jnp.asarray(-jnp.inf, values.dtype), 1
    while step < values.shape[0]:
        before = lax.pad(values, least, [(step, -step, 0)] + [(0, 0, 0)] * (values.ndim - 1))
        values = settled(jnp.maximum(values, before))
        step *= 2
    return values
