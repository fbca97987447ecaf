"""How good forecasts were, group by group of the partitions, while a canary is tried; at other times it does nothing.

Each value is held against the quantiles of the forecast that stood before it (CRPS), and against "as before". Both are
told in mean moves of the asset: a ruler that no number of the predictor can bend. An asset counts once it has had
enough ticks, and the worker enough time, under the numbers of the round. An alarm is a tick that found a new regime.
"""

import math

import numpy as np

from predictor_core import Event
from scheduler.hotpath.trial import Sums
from worker.device import Answer
from worker.generations import Generation
from worker.microbatch import MicroBatch
from worker.rows import RowTable

SCORED_MAX = 4096  # rows of this worker
MOVES = 32  # over which the ruler is a mean
SETTLED_MEMORIES = 3  # of the volatility, whose memory is 1 / alpha steps
WIDTHS_MAX = 100.0  # one value after a long standstill must not outweigh all others


class Losses:
    """The newest forecast of each scored row, and the sums of this round so far."""

    def __init__(self, table: RowTable, levels: tuple[float, ...], settle_s: float) -> None:
        self._table, self._settle_s = table, settle_s
        self._levels = np.array(levels)
        edges = (self._levels[1:] + self._levels[:-1]) / 2
        self._cells = np.diff(np.array([0.0, *edges, 1.0]))
        self._round: tuple[str, int] | None = None  # trial and generation
        self._forget(0)

    def take(self) -> tuple[int, dict[int, Sums]]:
        """The generation that was measured and what each group had since the last time; 0 when there was none."""
        sums, self._sums = self._sums, {}
        return (self._round[1], sums) if self._round and sums else (0, {})

    def committed(self, batch: MicroBatch, answer: Answer, now_s: float) -> None:
        """Takes a micro-batch whose effects are stored."""
        canary = batch.generation.canary
        if canary is None:
            if self._round is not None:
                self._round = None
                self._forget(0)
            return
        self._enter(batch.generation, now_s)
        work, results = batch.work, answer.results
        at = np.flatnonzero((work.slots < SCORED_MAX) & (results["rejected"] == 0))
        if not len(at):
            return
        groups = np.repeat([canary.group_of(part.holding.partition) for part in batch.parts], np.diff(work.bounds))
        at = at[np.argsort(work.slots[at], kind="stable")]
        self._follow(work.slots[at], work.values[at], results[at], groups[at], now_s)

    def _enter(self, generation: Generation, now_s: float) -> None:
        """A new round begins to settle; a new trial knows nothing of the last."""
        assert generation.canary is not None
        found = (generation.canary.trial, generation.number)
        if found == self._round:
            return
        if self._round is None or self._round[0] != found[0]:
            self._forget(min(SCORED_MAX, len(self._table.tenancy)))
        self._round, self._sums, self._ticks[:] = found, {}, 0
        self._from_s = now_s + self._settle_s
        both = (generation.everyone, generation.canary.side.everyone)
        slowest = min(float(numbers.params.volatility_alpha) for numbers in both)
        self._ticks_min = math.ceil(SETTLED_MEMORIES / slowest)

    def _follow(
        self, slots: np.ndarray, values: np.ndarray, made: np.ndarray, groups: np.ndarray, now_s: float
    ) -> None:
        first = np.ones(len(slots), bool)
        first[1:] = slots[1:] != slots[:-1]
        heads, last = slots[first], np.roll(first, -1)
        new = self._tenancy[heads] != self._table.tenancy[heads]
        self._rulers[heads[new]], self._ticks[heads[new]] = 0.0, 0
        before, stood = np.roll(values, 1), np.roll(made["quantiles"], 1, axis=0)
        before[first], stood[first] = self._values[heads], self._quantiles[heads]
        known = np.ones(len(slots), bool)
        known[first] = ~new
        moves = np.abs(values - before)
        rulers = self._rulers[slots]
        if now_s >= self._from_s:
            scored = known & (rulers > 0) & (self._ticks[slots] >= self._ticks_min) & np.isfinite(stood).all(1)
            alarms = (made["events"] & np.uint32(Event.RegimeChangeDetected)) != 0
            told = (values, stood, moves, rulers, groups, alarms)
            self._score(*(each[scored] for each in told))
        self._remember(slots, moves, known)
        tails = slots[last]
        self._values[tails], self._quantiles[tails] = values[last], made["quantiles"][last]
        self._tenancy[tails] = self._table.tenancy[tails]

    def _score(
        self,
        values: np.ndarray,
        stood: np.ndarray,
        moves: np.ndarray,
        rulers: np.ndarray,
        groups: np.ndarray,
        alarms: np.ndarray,
    ) -> None:
        apart = values[:, None] - stood
        crps = 2 * (self._cells * np.maximum(self._levels * apart, (self._levels - 1) * apart)).sum(1)
        losses, naives = (np.minimum(each / rulers, WIDTHS_MAX) for each in (crps, moves))
        covered = (values >= stood[:, 0]) & (values <= stood[:, -1])
        for group in np.unique(groups).tolist():
            at = groups == group
            scored, within, alarmed = (int(np.count_nonzero(each[at])) for each in (at, covered, alarms))
            told = Sums(scored, float(losses[at].sum()), float(naives[at].sum()), within, alarmed)
            self._sums[group] = self._sums.get(group, Sums()) + told

    def _remember(self, slots: np.ndarray, moves: np.ndarray, known: np.ndarray) -> None:
        """Each row's mean move follows its own values only, batch by batch."""
        rows, place = np.unique(slots, return_inverse=True)
        counts = np.bincount(place, known)
        had = counts > 0
        means = np.bincount(place, moves * known)[had] / counts[had]
        rows, share = rows[had], np.minimum(1.0, counts[had] / MOVES)
        fresh = self._rulers[rows] == 0
        self._rulers[rows] += np.where(fresh, 1.0, share) * (means - self._rulers[rows])
        np.add.at(self._ticks, slots, 1)

    def _forget(self, rows: int) -> None:
        self._sums: dict[int, Sums] = {}
        self._from_s, self._ticks_min = math.inf, 0
        self._tenancy = np.full(rows, -1, np.int64)
        self._ticks = np.zeros(rows, np.int64)
        self._values, self._rulers = np.zeros(rows), np.zeros(rows)
        self._quantiles = np.zeros((rows, len(self._levels)))
