"""The Hölder exponent by O(1) structure functions, and the breaker that trips when it is too low.

    M_q(l) = mean |x_t - x_(t-l)|^q   l in 1, 2, 4, 8, q in 1, 2, 4      zeta(q): slope of ln M_q on ln l
    H = zeta(2) / 2    h12 = zeta(2) - zeta(1)    h24 = (zeta(4) - zeta(2)) / 2

H is the exponent of a path that is equally rough everywhere. A lone jump leaves it at one half; h12 sees the jump and
goes to nought, while ordinary heavy tails move it little (h24 would call them singular most of the time, so it is only
shown). The means grow with the sample up to MEMORY ticks and fade from there. The breaker does not read the raw
estimate, which falls below 0.4 by chance, but min(H + its standard error, h12 + 0.06), the median of three ticks: heavy
tails draw h12 down by as much, however long the sample.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from .lanes import column, real_of, running_mean, spread

LAGS, POWERS = (1, 2, 4, 8), (1, 2, 4)
MEMORY = 512
STEP_MAX = 50.0  # in units of the pace: a jump registers, but does not own the memory
WARM_UP, UNKNOWN = 32, 0.5
ERROR_AT_128 = 0.06
EXIT_MARGIN = 0.05


class Roughness(eqx.Module):
    age: Array  # int32, moves seen
    recent: Array  # (7,) the moves before, newest first
    means: Array  # (powers, lags)
    before: Array  # (2,) the last two values of the lifted exponent
    tripped: Array  # int32, ticks since the breaker tripped, 0 while it has not


class Reading(NamedTuple):
    holder: Any  # lifted by its error, median of three: what the breaker reads
    raw: Any  # zeta(2) / 2
    h12: Any
    h24: Any
    intermittency: Any
    error: Any  # standard error of raw
    variance_ratio: Any  # VR(8): 1 for a random walk
    autocorrelation: Any  # of the moves, at lag 1
    emergency: Any  # bool


def cold(shapes: object, lanes: tuple[int, ...]) -> Roughness:
    real = real_of(shapes)
    none = spread(0, lanes, np.int32)
    return Roughness(
        age=none,
        recent=spread(np.zeros(LAGS[-1] - 1), lanes, real),
        means=spread(np.zeros((len(POWERS), len(LAGS))), lanes, real),
        before=spread([UNKNOWN, UNKNOWN], lanes, real),
        tripped=none,
    )


def update(roughness: Roughness, move: Array, params: Any) -> tuple[Roughness, Reading]:
    """Takes one move in, measured in the asset's own pace."""
    real = move.dtype
    age = jnp.minimum(roughness.age + 1, 1 << 20)
    moves = jnp.concatenate([jnp.clip(move, -STEP_MAX, STEP_MAX)[None], roughness.recent], 0)
    steps = abs(_steps(moves))
    powers = jnp.stack([steps, steps**2, steps**4])
    # A lag of l has a difference from the l-th move on.
    seen = jnp.maximum(age[None] - column(np.array(LAGS) - 1, move), 0).astype(real)
    grown = running_mean(roughness.means, powers, 1 / MEMORY, jnp.maximum(seen, 1))
    means = jnp.where(seen > 0, grown, roughness.means)

    known = (age >= WARM_UP) & (means[1, 0] > 0)
    raw, h12, h24, intermittency = exponents(means)
    error = ERROR_AT_128 * jnp.sqrt(128 / jnp.minimum(age.astype(real), MEMORY))
    lifted = jnp.clip(jnp.minimum(raw + error, h12 + ERROR_AT_128), 0, 1)
    lifted = jnp.where(known, lifted, UNKNOWN)
    holder = _median(lifted, roughness.before[0], roughness.before[1])
    highest = jnp.where(known, raw + 3 * error, UNKNOWN)
    tripped = _trip(roughness.tripped, holder, highest, params)

    one = jnp.maximum(means[1, 0], 1e-30)
    reading = Reading(
        holder=holder,
        raw=jnp.where(known, jnp.clip(raw, 0, 1), UNKNOWN),
        h12=jnp.where(known, h12, UNKNOWN),
        h24=jnp.where(known, h24, UNKNOWN),
        intermittency=jnp.where(known, intermittency, 0.0),
        error=error,
        variance_ratio=jnp.where(known, means[1, 3] / (8 * one), 1.0),
        autocorrelation=jnp.where(known, jnp.clip(means[1, 1] / (2 * one) - 1, -1, 1), 0.0),
        emergency=tripped > 0,
    )
    before = jnp.stack([lifted, roughness.before[0]])
    return Roughness(age, moves[:-1], means, before, tripped), reading


def exponents(means: Array) -> tuple[Array, Array, Array, Array]:
    """H, h12, h24 and intermittency from means of shape (powers, lags, ...)."""
    logs = jnp.log(jnp.maximum(means, 1e-30))
    one, two, four = (logs * column(_slope_weights()[None], means[0, 0])).sum(1)
    return two / 2, two - one, (four - two) / 2, two / 2 - four / 4


def _slope_weights() -> np.ndarray:
    """Weights that read the slope on ln l, long lags counting less: their differences overlap more."""
    x = np.log(LAGS)
    trust = np.array(LAGS) ** -1.5
    centred = x - (trust * x).sum() / trust.sum()
    return trust * centred / (trust * centred**2).sum()


def estimate(levels: Any) -> dict[str, float]:
    """The same exponents of a whole signal at once, each lag over all of it."""
    levels = np.asarray(levels, np.float64)
    steps = [abs(levels[lag:] - levels[:-lag]) for lag in LAGS]
    logs = np.log(np.maximum([[np.mean(step**power) for step in steps] for power in POWERS], 1e-300))
    one, two, four = logs @ _slope_weights()
    return {"holder": two / 2, "h12": two - one, "h24": (four - two) / 2}


def _steps(moves: Array) -> Array:
    """x_t - x_(t-l) for the four lags, from the last eight moves."""
    two = moves[0] + moves[1]
    four = two + moves[2] + moves[3]
    return jnp.stack([moves[0], two, four, four + moves[4] + moves[5] + moves[6] + moves[7]])


def _median(a: Array, b: Array, c: Array) -> Array:
    return jnp.maximum(jnp.minimum(a, b), jnp.minimum(jnp.maximum(a, b), c))


def _trip(tripped: Array, holder: Array, highest: Array, params: Any) -> Array:
    """Trips below the threshold, or where the highest H that the data allow leaves the dimension 2 - H above its bound.

    It stays tripped for the grace period at least, and until the exponent is clear of the threshold.
    """
    real = holder.dtype
    threshold = jnp.asarray(params.holder_threshold, real)
    low = (holder < threshold) | (2 - highest > jnp.asarray(params.robustness_dimension_threshold, real))
    stays = (holder <= threshold + EXIT_MARGIN) | low | (tripped < params.grace_period_steps)
    ticks = jnp.minimum(tripped + 1, 1 << 20)
    return jnp.where(tripped > 0, jnp.where(stays, ticks, 0), jnp.where(low, 1, 0)).astype(jnp.int32)
