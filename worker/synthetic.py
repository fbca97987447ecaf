"""A synthetic market: pure, endless, and the same for the same seed.

Each asset follows one of five processes. A round advances every asset once and gives out, in random order, those that
trade in it; some assets trade in every round, others in one of five.

    walk      log-price with stochastic volatility          jumps    the same, with rare large jumps
    revert    pulled back to its mean                       lattice  the same, on a price grid
    cycle     a damped oscillation, AR(2)
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

KINDS = ("walk", "revert", "cycle", "jumps", "lattice")
WALK, REVERT, CYCLE, JUMPS, LATTICE = range(5)


class Tick(NamedTuple):
    asset: str
    value: float
    timestamp_ns: int


def ticks(assets: int, rate: float, seed: int, start_ns: int) -> Iterator[Tick]:
    """Ticks at a steady rate, event times from `start_ns` on."""
    names = asset_names(assets)
    market = Market(assets, seed)
    count = 0
    while True:
        for asset, value in zip(*market.next_round(), strict=True):
            yield Tick(names[asset], float(value), start_ns + int(count * 1e9 / rate))
            count += 1


def asset_names(assets: int) -> list[str]:
    """The kind is in the name, so that a reader of the live table sees what to expect."""
    return [f"{KINDS[i % len(KINDS)]}-{i:05d}" for i in range(assets)]


class Market:
    """The state of all assets; `next_round` moves it on."""

    def __init__(self, assets: int, seed: int) -> None:
        self._rng = rng = np.random.default_rng(seed)
        self._kind = np.arange(assets) % len(KINDS)
        self._start = rng.lognormal(4.0, 1.0, assets)
        self._activity = rng.uniform(0.2, 1.0, assets)
        self._volatility = np.log(rng.uniform(2e-4, 4e-3, assets))
        self._calm = self._volatility.copy()
        self._grid = np.where(rng.random(assets) < 0.5, 0.01, 0.25)
        self._deviation = np.zeros(assets)  # of the log-price from its start
        self._before = np.zeros(assets)

    def next_round(self) -> tuple[np.ndarray, np.ndarray]:
        """The assets that trade now, in random order, and their values."""
        values = self._advance()
        trading = np.flatnonzero(self._rng.random(len(values)) < self._activity)
        order = self._rng.permutation(trading)
        return order, values[order]

    def _advance(self) -> np.ndarray:
        size = len(self._kind)
        shock = self._rng.standard_normal(size)
        self._volatility += 0.02 * (self._calm - self._volatility) + 0.1 * self._rng.standard_normal(size)
        jump = (self._rng.random(size) < 0.005) * self._rng.laplace(0.0, 0.02, size)
        now, step = self._deviation, np.exp(self._volatility) * shock
        moved = np.select(
            [self._kind == REVERT, self._kind == CYCLE, self._kind == JUMPS],
            [0.95 * now + step, 1.9 * now - 0.95 * self._before + 0.3 * step, now + step + jump],
            now + step,
        )
        self._before, self._deviation = now, moved
        values = self._start * np.exp(moved)
        return np.where(self._kind == LATTICE, np.maximum(np.round(values / self._grid), 1) * self._grid, values)
