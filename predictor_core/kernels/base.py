"""What the four kernels share: the view they see, the experts they offer, and an online ridge with forgetting.

An expert is a centre (the kernel's own forecast or none, the random walk) with a volatility, a recursion on its errors

    EWMA            h = decay h + (1 - decay) e^2
    GARCH, GJR      h = omega mean(e^2) + (reaction + leverage 1{e < 0}) e^2 + decay h

or LOCAL: the kernel's own readout of how large its error is where it stands now.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import Array

from .. import packed
from ..lanes import running_mean, settled, spread, total


class Volatility(NamedTuple):
    """A recursion for the variance."""

    reaction: float
    leverage: float
    decay: float
    omega: float


def ewma(decay: float) -> Volatility:
    return Volatility(1 - decay, 0.0, decay, 0.0)


def garch(reaction: float, decay: float, leverage: float = 0.0) -> Volatility:
    return Volatility(reaction, leverage, decay, 1 - reaction - leverage / 2 - decay)


BRISK, SMOOTH = ewma(0.8), ewma(0.94)
STEADY, QUICK, SKEWED = garch(0.06, 0.92), garch(0.15, 0.75), garch(0.01, 0.90, leverage=0.14)


LOCAL = None


class Expert(NamedTuple):
    """A forecast law."""

    centre: str | None  # a kernel's name, or none for the last value
    volatility: Volatility | None


NULL = Expert(None, STEADY)  # Each kernel holds it, so that no asset is worse off for having the kernel.


class View(NamedTuple):
    """An asset's recent past without its units, newest first."""

    heights: Array  # levels over their slow mean, in mean deviations
    moves: Array  # differences, in mean |difference|


class Forecast(NamedTuple):
    """In units of the asset."""

    mean: Array
    deviation: Array


class Readout(eqx.Module):
    """Two linear readouts of the same features, of the next move and of the logarithm of its error.

    Both are trained by recursive least squares, and share its covariance. `features` made the forecast that is out now.
    """

    weights: Array
    log_weights: Array
    features: Array
    covariance: Array
    error: Array  # mean |error| that the Huber bound is measured in
    excess: Array  # mean square of the errors over their local deviations


HUBER, WARM_UP, SPREAD_MAX = 4.0, 20, 10.0
ERROR_RATE, EXCESS_MAX = 0.02, 100.0
LOG_STEP_MAX, LOG_BIAS = 2.0, 0.6  # ln |e| of a normal error lies 0.635 below ln of its deviation
LOCAL_MIN, LOCAL_MAX = -6.0, 5.0


def cold_readout(size: int, lanes: tuple[int, ...], real: type) -> Readout:
    nothing = spread([0.0] * size, lanes, real)
    covariance = spread(packed.identity(size), lanes, real)
    return Readout(nothing, nothing, nothing, covariance, spread(0.0, lanes, real), spread(1.0, lanes, real))


def learn_readout(readout: Readout, target: Array, age: Array, forgetting: Array | float) -> Readout:
    """One step towards the target that the stored features should have given; nothing before the second move."""
    features, known = readout.features, age > 1.5
    gain = settled(packed.times(readout.covariance, features))
    error = target - total(readout.weights * features)
    trust = _huber(error, readout.error, age)
    step = jnp.where(known, 1 / (jnp.asarray(forgetting, target.dtype) + trust * total(features * gain)), 0.0)
    trust, step = settled((trust, step))
    swell = settled(_swell(readout.covariance[0] - trust * step * gain * gain, known, forgetting))
    local = total(readout.log_weights * features)
    log_error = jnp.clip(jnp.log(abs(error) + 1e-4) + LOG_BIAS - local, -LOG_STEP_MAX, LOG_STEP_MAX)
    excess = jnp.minimum((error * jnp.exp(-jnp.clip(local, LOCAL_MIN, LOCAL_MAX))) ** 2, EXCESS_MAX)
    return Readout(
        weights=readout.weights + trust * step * error * gain,
        log_weights=readout.log_weights + step * log_error * gain,
        features=features,
        covariance=packed.scale(packed.less_outer(readout.covariance, gain, trust * step), swell),
        error=jnp.where(known, running_mean(readout.error, trust * abs(error), ERROR_RATE, age), readout.error),
        excess=jnp.where(known, running_mean(readout.excess, excess, ERROR_RATE, age), readout.excess),
    )


def _huber(error: Array, typical: Array, age: Array) -> Array:
    bounded = jnp.minimum(1.0, HUBER * typical / (abs(error) + 1e-20))
    return jnp.where((age > WARM_UP) & (typical > 0), bounded, 1.0)


def _swell(diagonal: Array, known: Array, forgetting: Array | float) -> Array:
    """Factors on rows and columns that forget, but not where the features say nothing: there the covariance stays."""
    return jnp.where(known & (diagonal < SPREAD_MAX), jnp.asarray(forgetting**-0.5, diagonal.dtype), 1)


MEAN_MAX = 30.0


def silent(readout: Readout) -> tuple[Readout, Forecast]:
    """Answers that nothing will move, and keeps nothing to learn from."""
    none = jnp.zeros_like(readout.error)
    return eqx.tree_at(lambda r: r.features, readout, jnp.zeros_like(readout.features)), Forecast(none, none + 1)


def forecast(readout: Readout, features: Array) -> tuple[Readout, Forecast]:
    """Answers for new features and keeps them for the next step of learning."""
    mean = jnp.clip(total(readout.weights * features), -MEAN_MAX, MEAN_MAX)
    local = jnp.exp(jnp.clip(total(readout.log_weights * features), LOCAL_MIN, LOCAL_MAX))
    return eqx.tree_at(lambda r: r.features, readout, features), Forecast(mean, jnp.sqrt(readout.excess) * local)
