"""Bernstein online aggregation: second-order exponential weights in groups, with rates that tune themselves.

    V += r^2,  eta = min(1 / 2E, sqrt(ln n / V)),  R += r (1 - eta r),  weight ~ eta exp(eta R)

r is the regret of the group against its member, E the largest |r| seen; n members share a group.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from .lanes import column, spread, total


class Regrets(eqx.Module):
    total: Array  # R
    squares: Array  # V
    largest: Array  # E


def cold(members: int, lanes: tuple[int, ...], real: type) -> Regrets:
    nothing = spread([0.0] * members, lanes, real)
    return Regrets(nothing, nothing, spread([1e-9] * members, lanes, real))


def update(regrets: Regrets, regret: Array, sizes: tuple[int, ...]) -> Regrets:
    largest = jnp.maximum(regrets.largest, abs(regret))
    squares = regrets.squares + regret * regret
    rate = _rate(Regrets(regrets.total, squares, largest), sizes)
    return Regrets(regrets.total + regret * (1 - rate * regret), squares, largest)


def weights(regrets: Regrets, sizes: tuple[int, ...], haste: Array | float = 1.0) -> Array:
    """Weights that sum to one in each group; `haste` multiplies the rate."""
    rate = haste * _rate(regrets, sizes)
    scores = jnp.log(rate) + rate * regrets.total
    return jnp.concatenate([_softmax(part) for part in _groups(scores, sizes)], 0)


def _rate(regrets: Regrets, sizes: tuple[int, ...]) -> Array:
    logs = column(np.repeat([np.log(max(2, size)) for size in sizes], sizes), regrets.total[0])
    return jnp.minimum(0.5 / regrets.largest, jnp.sqrt(logs / jnp.maximum(regrets.squares, 1e-18)))


def _groups(values: Array, sizes: tuple[int, ...]) -> list[Array]:
    ends = np.cumsum(sizes)
    return [values[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _softmax(scores: Array) -> Array:
    raw = jnp.exp(scores - scores.max(0))
    return raw / total(raw)
