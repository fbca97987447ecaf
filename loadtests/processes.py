"""Synthetic series of known law: levels, and where the law of the next value is cheap, its mean and its quantiles.

Each generator is (length, generator) -> Process. Laws are exact given the past, or None.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from predictor_core.levels import LEVELS, NORMAL


class Process(NamedTuple):
    levels: np.ndarray  # [n]
    oracle: np.ndarray | None = None  # [n, levels] quantiles of each value given those before it; row 0 means nothing


Rng = np.random.Generator


def gaussian(mean: np.ndarray, deviation: float | np.ndarray) -> np.ndarray:
    return mean[:, None] + np.broadcast_to(deviation, mean.shape)[:, None] * NORMAL


def from_moves(moves: np.ndarray, laws: np.ndarray | None) -> Process:
    levels = np.concatenate([[0.0], np.cumsum(moves)[:-1]])
    if laws is None:
        return Process(levels)
    oracle = np.concatenate([np.full((1, len(LEVELS)), np.nan), levels[:-1, None] + laws[:-1]])
    return Process(levels, oracle)


def fractional(hurst: float, lags: int = 128) -> Callable[[int, Rng], Process]:
    """Fractional Brownian motion by circulant embedding; its law by Durbin and Levinson's recursion."""

    def generate(n: int, rng: Rng) -> Process:
        k = np.arange(n + 2.0)
        covariance = 0.5 * (abs(k + 1) ** (2 * hurst) - 2 * k ** (2 * hurst) + abs(k - 1) ** (2 * hurst))
        spectrum = np.maximum(np.fft.fft(np.concatenate([covariance, covariance[-2:0:-1]])).real, 0)
        noise = rng.standard_normal(len(spectrum)) + 1j * rng.standard_normal(len(spectrum))
        moves = np.fft.fft(np.sqrt(spectrum / len(spectrum)) * noise).real[:n]
        taps, variance, laws = np.zeros(0), covariance[0], np.zeros((n, 2))
        for t in range(n):
            laws[t] = taps @ moves[t - len(taps) : t][::-1], np.sqrt(variance)
            if len(taps) < min(lags, n - 1) and len(taps) == t:
                order = len(taps)
                last = (covariance[order + 1] - taps @ covariance[order:0:-1]) / variance
                taps = np.concatenate([taps - last * taps[::-1], [last]])
                variance *= 1 - last * last
        return from_moves(moves, gaussian(laws[:, 0], laws[:, 1]))

    return generate


def brownian(n: int, rng: Rng) -> Process:
    return from_moves(0.01 * rng.standard_normal(n) + 1e-4, gaussian(np.full(n, 1e-4), 0.01))


def ornstein_uhlenbeck(n: int, rng: Rng) -> Process:
    keep = np.exp(-0.1)
    deviation = np.sqrt((1 - keep * keep) / 0.2)
    levels = np.zeros(n)
    for t in range(1, n):
        levels[t] = keep * levels[t - 1] + deviation * rng.standard_normal()
    return Process(levels, gaussian(keep * np.concatenate([[0.0], levels[:-1]]), deviation))


def autoregressive(n: int, rng: Rng) -> Process:
    """A second-order pseudo-cycle of about twelve ticks."""
    levels, means = np.zeros(n), np.zeros(n)
    for t in range(2, n):
        means[t] = 1.5 * levels[t - 1] - 0.75 * levels[t - 2]
        levels[t] = means[t] + rng.standard_normal()
    return Process(levels, gaussian(means, 1.0))


def garch(n: int, rng: Rng) -> Process:
    shape = np.sqrt(3 / 5)
    law = np.quantile(np.random.default_rng(0).standard_t(5, 400_000) * shape, LEVELS)
    variance, moves, deviations = 1.0, np.zeros(n), np.zeros(n)
    for t in range(n):
        deviations[t] = np.sqrt(variance)
        moves[t] = deviations[t] * shape * rng.standard_t(5)
        variance = 0.02 + 0.1 * moves[t] ** 2 + 0.88 * variance
    return from_moves(moves, deviations[:, None] * law)


def merton(n: int, rng: Rng) -> Process:
    """A random walk with rare jumps down."""

    def draw(count: int, rng: Rng) -> np.ndarray:
        jumps = rng.poisson(0.02, count)
        return rng.standard_normal(count) - 2 * jumps + 4 * np.sqrt(jumps) * rng.standard_normal(count)

    law = np.quantile(draw(400_000, np.random.default_rng(0)), LEVELS)
    return from_moves(draw(n, rng), np.tile(law, (n, 1)))


def heston(n: int, rng: Rng) -> Process:
    variance, moves = 1.0, np.zeros(n)
    for t in range(n):
        shock, other = rng.standard_normal(2)
        positive = max(variance, 0.0)
        moves[t] = np.sqrt(positive) * shock
        variance += 0.03 * (1 - positive) + 0.12 * np.sqrt(positive) * (0.8 * other - 0.6 * shock)
    return from_moves(moves, None)


def regimes(n: int, rng: Rng) -> Process:
    """Three hidden regimes of drift and volatility."""
    drifts, deviations, state, moves = (0.3, -0.5, 0.0), (0.6, 1.8, 1.0), 0, np.zeros(n)
    for t in range(n):
        if rng.random() < 0.01:
            state = int(rng.integers(3))
        moves[t] = drifts[state] + deviations[state] * rng.standard_normal()
    return from_moves(moves, None)


def logistic(n: int, rng: Rng) -> Process:
    levels, means = np.full(n, 0.4), np.zeros(n)
    for t in range(1, n):
        means[t] = 3.9 * levels[t - 1] * (1 - levels[t - 1])
        value = abs(means[t] + 0.01 * rng.standard_normal())
        levels[t] = min(value, 2 - value)
    return Process(levels, gaussian(means, 0.01))


def mackey_glass(n: int, rng: Rng) -> Process:
    delay, start = 17, 300
    levels, means = np.full(n + start, 1.2), np.zeros(n + start)
    levels[: delay + 1] += 0.1 * rng.standard_normal(delay + 1)
    for t in range(delay + 1, n + start):
        past = levels[t - 1 - delay]
        means[t] = 0.9 * levels[t - 1] + 0.2 * past / (1 + past**10)
        levels[t] = means[t] + 0.005 * rng.standard_normal()
    return Process(levels[start:], gaussian(means[start:], 0.005))


def heartbeat(n: int, rng: Rng) -> Process:
    """Pulses of one shape, a little irregular."""
    levels, at, ticks = 0.01 * rng.standard_normal(n), 0.0, np.arange(n)
    while at < n:
        for offset, width, height in ((-12, 2.5, 0.12), (0, 1.3, 1.0), (3, 1.3, -0.25), (20, 6.0, 0.3)):
            levels += height * np.exp(-0.5 * ((ticks - at - offset) / width) ** 2)
        at += 75 * (1 + 0.05 * rng.standard_normal())
    return Process(levels)


def daily_cycle(n: int, rng: Rng) -> Process:
    """A cycle of 48 ticks with drops to nought."""
    ticks, noise, down = np.arange(n), np.zeros(n), np.zeros(n, bool)
    for t in range(1, n):
        noise[t] = 0.9 * noise[t - 1] + 1.5 * rng.standard_normal()
    for begin in np.flatnonzero(rng.random(n) < 0.004):
        down[begin : begin + int(rng.integers(1, 15))] = True
    return Process(np.where(down, 0.0, 60 + 25 * np.sin(2 * np.pi * ticks / 48) + noise))


def bounce(n: int, rng: Rng) -> Process:
    """Trades at bid or ask on a lattice of quarters: most moves are none."""
    middle = np.cumsum((rng.random(n) < 0.06) * rng.choice([-1, 1], n))
    side = np.cumprod(np.where(rng.random(n) < 0.22, -1, 1))
    return Process(1600 + 0.25 * (middle + (side + 1) / 2))


def short_season(n: int, rng: Rng) -> Process:
    """A trend and a year of twelve, 600 ticks in all."""
    n = min(n, 600)
    ticks = np.arange(n)
    wander = np.cumsum(0.12 * rng.standard_normal(n)) + 0.25 * rng.standard_normal(n)
    return Process(320 + 0.12 * ticks + 3 * np.sin(2 * np.pi * ticks / 12) + wander)


GENERATORS: dict[str, Callable[[int, Rng], Process]] = {
    "fbm_0.2": fractional(0.2),
    "fbm_0.5": fractional(0.5),
    "fbm_0.85": fractional(0.85),
    "gbm": brownian,
    "ou": ornstein_uhlenbeck,
    "ar2": autoregressive,
    "garch_t": garch,
    "merton": merton,
    "heston": heston,
    "regimes": regimes,
    "logistic": logistic,
    "mackey_glass": mackey_glass,
    "heartbeat": heartbeat,
    "daily_cycle": daily_cycle,
    "bounce": bounce,
    "short_season": short_season,
}


def suite(length: int = 2500, seed: int = 7) -> dict[str, Process]:
    """All of them, the same at every call."""
    return {
        name: generate(length, np.random.default_rng([seed, index]))
        for index, (name, generate) in enumerate(GENERATORS.items())
    }
