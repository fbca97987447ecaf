"""The errors of every centre, and the ladder of volatilities that the experts read from them."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import Array

from .kernels import CENTRES, RECURSIONS
from .kernels.base import Forecast, Volatility
from .lanes import real_of, running_mean, spread

FLOOR = 0.3  # a volatility is never below this share of the mean |error|


class Residuals(eqx.Module):
    means: Array  # (centres,) the forecasts that are out now; the random walk's is nought
    squares: Array  # (centres,) slow mean of the squared errors
    sizes: Array  # (centres,) slow mean of the absolute errors
    variances: Array  # (recursions,)
    local: Array  # (centres but the random walk's,) the deviations that the kernels forecast themselves


def cold(shapes: Any, lanes: tuple[int, ...]) -> Residuals:
    real = real_of(shapes)
    per_centre, local = spread([0.0] * len(CENTRES), lanes, real), spread([1.0] * (len(CENTRES) - 1), lanes, real)
    return Residuals(per_centre, per_centre, per_centre, spread([0.0] * len(RECURSIONS), lanes, real), local)


def learn(residuals: Residuals, move: Array, bound: Array, age: Array) -> Residuals:
    """Takes the errors of the forecasts that were out; `bound` keeps one outlier from owning the memory."""
    errors = jnp.clip(move - residuals.means, -bound, bound)
    count = jnp.maximum(age, 1.0)
    squares = running_mean(residuals.squares, errors * errors, 0.01, count)
    rungs = [
        _recur(volatility, residuals.variances[i], errors[centre], squares[centre], count)
        for i, (centre, volatility) in enumerate(RECURSIONS)
    ]
    sizes = running_mean(residuals.sizes, abs(errors), 0.01, count)
    return Residuals(residuals.means, squares, sizes, jnp.stack(rungs), residuals.local)


def publish(residuals: Residuals, forecasts: Sequence[Forecast], unit: Array) -> Residuals:
    """Puts out the kernels' forecasts, in the order of CENTRES."""
    means = [jnp.zeros_like(unit), *(unit * forecast.mean for forecast in forecasts)]
    local = [unit * forecast.deviation for forecast in forecasts]
    return eqx.tree_at(lambda r: (r.means, r.local), residuals, (jnp.stack(means), jnp.stack(local)))


def _recur(volatility: Volatility, variance: Array, error: Array, square: Array, count: Array) -> Array:
    if volatility.omega == 0:
        return running_mean(variance, error * error, volatility.reaction, count)
    reaction = volatility.reaction
    if volatility.leverage:
        reaction = reaction + jnp.where(error < 0, volatility.leverage, 0.0).astype(error.dtype)
    before = jnp.where(count < 1.5, square, variance)
    return volatility.omega * square + reaction * error * error + volatility.decay * before


def deviations(residuals: Residuals) -> Array:
    """Standard deviation of every recursion, one while nothing has moved, then every local one."""
    recurred = jnp.sqrt(jnp.maximum(residuals.variances, 0.0))
    ladder = jnp.maximum(recurred, _floor(residuals, [centre for centre, _ in RECURSIONS]))
    return jnp.concatenate([ladder, jnp.maximum(residuals.local, _floor(residuals, range(1, len(CENTRES))))], 0)


def _floor(residuals: Residuals, centres: Sequence[int]) -> Array:
    sizes = jnp.stack([residuals.sizes[centre] for centre in centres])
    return jnp.where(sizes > 0, FLOOR * sizes, 1.0)
