"""What a worker tells of its forecasts while a canary is tried, group by group, as a slow reading of the ticks does."""

from types import SimpleNamespace

import numpy as np
import pytest

from predictor_core import Event
from worker.generations import Canary, Generation, Numbers, Side
from worker.hotpath.losses import MOVES, Losses
from worker.rows import RowTable

LEVELS = (0.1, 0.5, 0.9)
CELLS = (0.3, 0.4, 0.3)
RESULT = np.dtype([("rejected", np.int32), ("quantiles", np.float64, (3,)), ("events", np.uint32)])
NUMBERS = Numbers(SimpleNamespace(volatility_alpha=0.5), b"m")


def generation(number=1, turn=0, trial="t", of=2):
    return Generation(number, NUMBERS, {}, Canary(trial, of, turn, Side(NUMBERS, {})))


class Bench:
    """Two partitions of four assets each, and the loss of each value worked out by hand."""

    def __init__(self, settle_s=0.0):
        self.table = RowTable(np.zeros(1, np.uint32), 8)
        self.holdings = [SimpleNamespace(slots=np.full(4, -1, np.int32), partition=p) for p in (0, 1)]
        for holding in self.holdings:
            for code in range(4):
                self.table.place(holding, code, np.zeros(1, np.uint32))
        self.losses = Losses(self.table, LEVELS, settle_s)
        self.now_s = 0.0

    def batch(self, at, slots, values, quantiles, rejected=None, events=0):
        """Slots 0 to 3 are of partition 0, in the order in which they are given."""
        slots, values = np.array(slots), np.array(values, float)
        results = np.zeros(len(slots), RESULT)
        results["quantiles"] = quantiles
        results["events"] = events
        results["rejected"] = 0 if rejected is None else rejected
        first = int((slots < 4).sum())
        work = SimpleNamespace(slots=slots, values=values, bounds=[0, first, len(slots)])
        parts = [SimpleNamespace(holding=holding) for holding in self.holdings]
        batch = SimpleNamespace(generation=at, work=work, parts=parts)
        self.losses.committed(batch, SimpleNamespace(results=results), self.now_s)


def crps(value, quantiles):
    apart = [value - quantile for quantile in quantiles]
    return 2 * sum(c * max(p * a, (p - 1) * a) for c, p, a in zip(CELLS, LEVELS, apart, strict=True))


def test_losses_of_each_group_are_those_of_a_slow_reading():
    bench, rng, at = Bench(), np.random.default_rng(2), generation()
    ticks_min = 6  # three memories of an alpha of one half
    stood, before, moves, seen = {}, {}, {}, {}
    wanted = {0: [0, 0.0, 0.0, 0, 0], 1: [0, 0.0, 0.0, 0, 0]}
    for _ in range(60):
        slots = np.sort(rng.choice(8, 5, replace=False)).tolist()  # one tick of an asset a batch: nothing is between
        values, quantiles = rng.normal(size=5), np.sort(rng.normal(size=(5, 3)), axis=1)
        events = rng.choice([0, int(Event.RegimeChangeDetected), int(Event.GracePeriod)], 5)
        bench.batch(at, slots, values, quantiles, events=events)
        for slot, value, made, event in zip(slots, values, quantiles, events, strict=True):
            if slot in before:
                move = abs(value - before[slot])
                if seen[slot] >= ticks_min and slot in moves:
                    sums = wanted[slot // 4]
                    sums[0] += 1
                    sums[1] += min(crps(value, stood[slot]) / moves[slot], 100)
                    sums[2] += min(move / moves[slot], 100)
                    sums[3] += stood[slot][0] <= value <= stood[slot][-1]
                    sums[4] += event == Event.RegimeChangeDetected
                moves[slot] = moves[slot] + (move - moves[slot]) / MOVES if slot in moves else move
            before[slot], stood[slot], seen[slot] = value, made, seen.get(slot, 0) + 1
    number, found = bench.losses.take()
    assert number == 1 and set(found) == {0, 1}
    for group, sums in wanted.items():
        assert tuple(vars(found[group]).values()) == pytest.approx(tuple(sums))
        assert sums[0] > 50
    assert bench.losses.take() == (0, {})


def fed(bench, at, count, slots=(0, 4)):
    for number in range(count):
        bench.batch(at, list(slots), [float(number % 3)] * len(slots), [[0.0, 1.0, 2.0]] * len(slots))


def test_without_a_canary_nothing_is_measured_and_nothing_kept():
    bench = Bench()
    fed(bench, Generation(1, NUMBERS, {}), 20)
    assert bench.losses.take() == (0, {}) and not len(bench.losses._values)
    fed(bench, generation(2), 20)
    assert bench.losses.take()[0] == 2
    fed(bench, Generation(3, NUMBERS, {}), 1)
    assert bench.losses.take() == (0, {}) and not len(bench.losses._values)


def test_a_new_round_settles_before_it_counts():
    bench = Bench(settle_s=5.0)
    fed(bench, generation(1), 20)
    assert bench.losses.take() == (0, {})  # settling by the clock
    bench.now_s = 6.0
    fed(bench, generation(1), 3)
    assert bench.losses.take()[1][0].scored == 3
    bench.now_s = 7.0
    fed(bench, generation(2, turn=1), 5)
    bench.now_s = 20.0
    fed(bench, generation(2, turn=1), 1)
    assert bench.losses.take() == (0, {})  # five ticks are less than three memories
    fed(bench, generation(2, turn=1), 4)
    number, found = bench.losses.take()
    assert (number, found[0].scored) == (2, 4)


def test_a_row_that_went_to_another_asset_begins_anew():
    bench, at = Bench(), generation()
    fed(bench, at, 20)
    bench.losses.take()
    bench.table.busy[:] = 0
    for holding in bench.holdings:
        bench.table.forget(holding)
    for holding in bench.holdings:
        for code in range(4):
            bench.table.place(holding, code, np.zeros(1, np.uint32))
    fed(bench, at, 5, slots=tuple(range(8)))
    assert bench.losses.take() == (0, {})


def test_rejected_ticks_do_not_count():
    bench, at = Bench(), generation()
    fed(bench, at, 20)
    bench.losses.take()
    bench.batch(at, [0, 4], [1e9, 1e9], [[0.0, 1.0, 2.0]] * 2, rejected=[1, 1])
    assert bench.losses.take() == (0, {})
