"""How good the forecasts were: of a few assets, each value is held against the forecast that stood before it.

Followed are the rows in the first slots of this worker's table, all their ticks; a slot that was given away begins
anew. Losses are told in widths of the forecast's band, so that assets of any size add up.
"""

import numpy as np

from worker.device import Work
from worker.metrics import Metrics
from worker.rows import RowTable

FOLLOWED = 64
MIDDLE, LOW, HIGH, QUANTILES = range(4)  # the columns of a forecast; the last one and all behind it
WIDTHS_MAX = 100.0  # one value after a long standstill must not outweigh all others


class Quality:
    """The newest forecast of each followed row, and what became of those before."""

    def __init__(self, table: RowTable, levels: tuple[float, ...], metrics: Metrics) -> None:
        self._table, self._metrics = table, metrics
        edges = np.array([0.0, *levels, 1.0])
        self._levels = edges[1:-1]
        self._places = (edges[1:] + edges[:-1]) / 2  # of a value that falls between two quantiles
        self._cells = np.diff(np.array([0.0, *(self._levels[1:] + self._levels[:-1]) / 2, 1.0]))
        self._tenancy = np.full(FOLLOWED, -1, np.int64)
        self._values = np.zeros(FOLLOWED)
        self._forecasts = np.zeros((FOLLOWED, QUANTILES + len(levels)))

    def committed(self, work: Work, results: np.ndarray) -> None:
        """Takes the ticks of a micro-batch whose effects are stored."""
        at = np.flatnonzero(work.slots < FOLLOWED)
        at = at[results["rejected"][at] == 0]
        if not len(at):
            return
        at = at[np.argsort(work.slots[at], kind="stable")]
        slots, values, made = work.slots[at], work.values[at], _forecasts(results, at)
        first = np.ones(len(at), bool)
        first[1:] = slots[1:] != slots[:-1]
        with np.errstate(over="ignore", invalid="ignore"):  # a band may be as narrow or as wide as it likes
            stood, before, known = self._before(slots, values, made, first)
            self._hold(stood[known], values[known], before[known])
        self._remember(slots, values, made, np.append(first[1:], True))

    def _before(
        self, slots: np.ndarray, values: np.ndarray, made: np.ndarray, first: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each tick the forecast that stood, the value before, and whether there were any."""
        stood, before, heads = np.empty_like(made), np.empty_like(values), slots[first]
        stood[1:], before[1:] = made[:-1], values[:-1]
        stood[first], before[first] = self._forecasts[heads], self._values[heads]
        known = np.isfinite(stood[:, MIDDLE])
        known[first] &= self._tenancy[heads] == self._table.tenancy[heads]
        width = stood[:, HIGH] - stood[:, LOW]
        return stood, before, known & np.isfinite(width) & (width > 0)

    def _hold(self, stood: np.ndarray, values: np.ndarray, before: np.ndarray) -> None:
        """Counts how the values fell into their forecasts."""
        metrics, low, high = self._metrics, stood[:, LOW], stood[:, HIGH]
        width = high - low
        apart = values[:, None] - stood[:, QUANTILES:]
        crps = 2 * (self._cells * np.maximum(self._levels * apart, (self._levels - 1) * apart)).sum(1)
        metrics.followed.inc(len(values))
        metrics.band_misses.labels("below").inc(int(np.count_nonzero(values < low)))
        metrics.band_misses.labels("above").inc(int(np.count_nonzero(values > high)))
        metrics.pit.inc(float(self._places[(apart > 0).sum(1)].sum()))
        metrics.forecast_loss.inc(np.minimum(crps / width, WIDTHS_MAX).sum().item())
        metrics.naive_loss.inc(np.minimum(np.abs(values - before) / width, WIDTHS_MAX).sum().item())

    def _remember(self, slots: np.ndarray, values: np.ndarray, made: np.ndarray, last: np.ndarray) -> None:
        tails = slots[last]
        self._forecasts[tails], self._values[tails] = made[last], values[last]
        self._tenancy[tails] = self._table.tenancy[tails]


def _forecasts(results: np.ndarray, at: np.ndarray) -> np.ndarray:
    """What is judged of these results, in plain columns: copies of whole results are slow."""
    made = np.empty((len(at), QUANTILES + results["quantiles"].shape[1]))
    made[:, MIDDLE] = results["reference_prediction"][at]
    made[:, LOW], made[:, HIGH] = results["confidence_lower"][at], results["confidence_upper"][at]
    made[:, QUANTILES:] = results["quantiles"][at]
    return made
