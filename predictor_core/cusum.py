"""CUSUM alarms on residuals, with a threshold that knows about heavy tails and a grace period after each alarm.

    r = e - phi e_last                          whitened by the tracked AR(1) coefficient
    z = Phi^-1(F(r))                            F: a table of tracked quantiles, one slow reference for body and tails
    G+ = max(0, G+ + c sigma (z - k))           G- the same on -z, Gs on (z^2 - 1) / sqrt(2)
    h_t = m h sigma (1 + ln(max(kappa, 3) / 3)) alarm when any G passes h_t

Everything published is in the unit of the residuals: twice the residuals, twice G and h_t, the same alarms. z is
standard normal for any continuous law, so one h gives one rate of false alarms; the steps are shrunk (c < 1), so that
h = 5 lasts a thousand ticks. At ties z takes the middle rank, so a series full of them is quiet.

The kurtosis is a margin for what a table cannot know: volatility that changes by itself. It enters as a slow mean, or
a change of scale would hide behind the kurtosis it brings. The patience m >= 1 does the rest: each alarm makes the
asset's own threshold a quarter higher, each quiet tick wears that off, so that no asset can spend its life in alarm.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from .lanes import column, real_of, running_max, running_mean, settled, spread, summed
from .levels import LEVELS, NORMAL

TABLE = [0, 1, 2, 3, 5, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22]  # of the 23 levels: close in the tails, wide in the body
RANKS, SCORES = LEVELS[TABLE], NORMAL[TABLE]
DENSITIES = np.exp(-0.5 * SCORES**2) / np.sqrt(2 * np.pi)
TABLE_RATE, WHITEN_RATE = 0.002, 0.002
START, WARM_UP = 30, 60  # ticks until the table is learnt rank by rank; until anything is accumulated
YOUTH = 5  # ticks; what has been learnt from n ticks is trusted by n / (n + YOUTH)
SCORE_MAX, RESIDUAL_MAX, KURTOSIS_MAX = 3.1, 8.0, 100.0
KURTOSIS_RATE, KURTOSIS_WARNING, KURTOSIS_TICKS = 0.01, 20.0, 5
MEAN_SHARE, SCALE_SHARE, SCALE_SLACK = 0.855, 0.76, 0.36  # c, and what Gs adds to k
IMPATIENCE, PATIENCE_MAX, ALARM_BUDGET = 0.25, 5.0, 1 / 2000


class Cusum(eqx.Module):
    age: Array  # int32
    last: Array  # the residual before, winsorised
    cross: Array  # EW e e_last
    square: Array  # EW e^2
    table: Array  # (ranks,) quantiles of the whitened residual
    second: Array  # EW square of the whitened residual
    fourth: Array  # EW fourth power over the square of `second`
    kurtosis: Array
    up: Array  # G+, G-, Gs in deviations
    down: Array
    scale: Array
    patience: Array  # ln m
    grace: Array  # int32, ticks of grace left
    heavy: Array  # int32, ticks in a row with a kurtosis out of all bounds


class Alarm(NamedTuple):
    """What the detector says at a tick, in the unit of the residuals."""

    alarm: Any  # bool: a regime change outside the grace period
    crossed: Any  # bool: some G is over the threshold, grace or not
    drift_up: Any
    drift_down: Any
    drift_scale: Any
    threshold: Any
    kurtosis: Any
    kurtosis_warning: Any  # bool
    sigma: Any
    grace: Any  # int32


def cold(shapes: object, lanes: tuple[int, ...]) -> Cusum:
    real = real_of(shapes)
    zero, none = spread(0.0, lanes, real), spread(0, lanes, np.int32)
    return Cusum(
        age=none,
        last=zero,
        cross=zero,
        square=zero,
        table=spread(np.zeros(len(RANKS)), lanes, real),
        second=zero,
        fourth=zero,
        kurtosis=spread(3.0, lanes, real),
        up=zero,
        down=zero,
        scale=zero,
        patience=zero,
        grace=none,
        heavy=none,
    )


def update(cusum: Cusum, residual: Array, params: Any) -> tuple[Cusum, Alarm]:
    """Takes one residual in; pass the state on unchanged where there is none."""
    real = residual.dtype
    age = cusum.age + 1
    count = age.astype(real)
    sigma = jnp.sqrt(cusum.second)
    whitened, winsorised = _whiten(cusum, residual, count)
    score = _score(cusum.table, whitened, sigma, age)

    slack, h = jnp.asarray(params.cusum_k, real), jnp.asarray(params.cusum_h, real)
    size = (score * score - 1) / float(np.sqrt(2))
    trust = count / (count + YOUTH)
    up = jnp.maximum(0.0, cusum.up + MEAN_SHARE * (trust * score - slack))
    down = jnp.maximum(0.0, cusum.down - MEAN_SHARE * (trust * score + slack))
    scale = jnp.maximum(0.0, cusum.scale + SCALE_SHARE * (trust * size - slack - SCALE_SLACK))

    limit = h * (1 + jnp.log(jnp.maximum(cusum.kurtosis, 3.0) / 3)) * jnp.exp(cusum.patience)
    crossed = jnp.maximum(jnp.maximum(up, down), scale) > limit
    grace = jnp.maximum(cusum.grace - 1, 0)
    alarm = crossed & (grace == 0)
    grace = jnp.where(alarm, params.grace_period_steps, grace).astype(jnp.int32)
    patience = jnp.clip(cusum.patience + IMPATIENCE * (alarm - ALARM_BUDGET), 0.0, float(np.log(PATIENCE_MAX)))

    table = _learn_table(cusum.table, whitened, sigma, age)
    second, fourth, kurtosis = _learn_moments(cusum, whitened, count, params)
    heavy = jnp.where(kurtosis > KURTOSIS_WARNING, cusum.heavy + 1, 0).astype(jnp.int32)
    says = Alarm(
        alarm=alarm,
        crossed=crossed,
        drift_up=sigma * up,
        drift_down=sigma * down,
        drift_scale=sigma * scale,
        threshold=sigma * limit,
        kurtosis=kurtosis,
        kurtosis_warning=heavy > KURTOSIS_TICKS,
        sigma=sigma,
        grace=grace,
    )
    quiet = alarm | (age <= WARM_UP)
    return Cusum(
        age=jnp.minimum(age, 1 << 20),
        last=winsorised,
        cross=running_mean(cusum.cross, winsorised * cusum.last, WHITEN_RATE, count),
        square=running_mean(cusum.square, winsorised * winsorised, WHITEN_RATE, count),
        table=table,
        second=second,
        fourth=fourth,
        kurtosis=kurtosis,
        up=jnp.where(quiet, 0.0, up),
        down=jnp.where(quiet, 0.0, down),
        scale=jnp.where(quiet, 0.0, scale),
        patience=patience.astype(real),
        grace=grace,
        heavy=jnp.minimum(heavy, 1 << 20),
    ), says


def _whiten(cusum: Cusum, residual: Array, count: Array) -> tuple[Array, Array]:
    bound = jnp.where(cusum.age >= START, 4 * jnp.sqrt(cusum.square), jnp.inf)
    winsorised = jnp.clip(residual, -bound, bound)
    trust = count / (count + YOUTH)
    coefficient = trust * cusum.cross / jnp.maximum(cusum.square, 1e-30)
    return residual - jnp.clip(coefficient, -0.95, 0.95) * cusum.last, winsorised


def _score(table: Array, value: Array, sigma: Array, age: Array) -> Array:
    """The normal score of a value's rank: straight lines between the ranks, logarithms beyond the last."""
    table = jnp.where(age > START, running_max(table), column(SCORES, value) * sigma[None])
    floor = 1e-3 * sigma + 1e-30
    middle, width = (table[1:] + table[:-1]) / 2, jnp.maximum(table[1:] - table[:-1], floor)
    share = jnp.clip((value - middle) / width + 0.5, 0.0, 1.0)
    score = float(SCORES[0]) + settled(summed(share * column(np.diff(SCORES), value)))
    tail = float(SCORES[-1] - SCORES[-3])
    above = jnp.maximum(value - table[-1], 0.0) * tail / jnp.maximum(table[-1] - table[-3], floor)
    below = jnp.maximum(table[0] - value, 0.0) * tail / jnp.maximum(table[2] - table[0], floor)
    return jnp.clip(score + jnp.log1p(above) - jnp.log1p(below), -SCORE_MAX, SCORE_MAX)


def _learn_table(table: Array, value: Array, sigma: Array, age: Array) -> Array:
    """Moves every quantile by its own step: as far as a normal density there would ask for."""
    steps = jnp.maximum(TABLE_RATE, 1 / age.astype(value.dtype)) * sigma
    start = column(SCORES, value) * sigma[None]
    before = jnp.where(age > START, table, start)
    below = (value < before).astype(value.dtype)
    return before + steps * column(1 / DENSITIES, value) * (column(RANKS, value) - below)


def _learn_moments(cusum: Cusum, value: Array, count: Array, params: Any) -> tuple[Array, Array, Array]:
    real = value.dtype
    rate = (2 / (params.residual_window_size + 1.0)).astype(real)
    bound = jnp.where(cusum.age >= START, RESIDUAL_MAX * jnp.sqrt(cusum.second), jnp.inf)
    square = jnp.clip(value, -bound, bound) ** 2
    second = running_mean(cusum.second, square, rate, count)
    # A fourth power would leave float32 soon: the fourth moment is kept in the unit of the second, squared.
    unit = jnp.maximum(second, 1e-36)
    fourth = running_mean(cusum.fourth * (cusum.second / unit) ** 2, (square / unit) ** 2, rate, count)
    now = jnp.clip(fourth, 1.0, KURTOSIS_MAX)
    return second, fourth, running_mean(cusum.kurtosis, now, KURTOSIS_RATE, count)
