"""Forecasts are judged by what came: coverage, place and loss, against hand-made results."""

from types import SimpleNamespace

import numpy as np
import pytest

from worker.metrics import Metrics
from worker.quality import FOLLOWED, WIDTHS_MAX, Quality

LEVELS = tuple(np.arange(0.05, 0.96, 0.05).round(2).tolist())
RESULT = np.dtype(
    [
        ("rejected", "i4"),
        ("reference_prediction", "f8"),
        ("confidence_lower", "f8"),
        ("confidence_upper", "f8"),
        ("quantiles", "f8", (len(LEVELS),)),
    ]
)


class Judged:
    def __init__(self):
        self.metrics, self.table = Metrics(), SimpleNamespace(tenancy=np.zeros(FOLLOWED * 2, np.int64))
        self.quality = Quality(self.table, LEVELS, self.metrics)

    def tick(self, slots, values, low=-1.0, high=1.0, rejected=0):
        results = np.zeros(len(slots), RESULT)
        results["rejected"] = rejected
        results["confidence_lower"], results["confidence_upper"] = low, high
        if np.isfinite(high - low):
            results["quantiles"] = low + (high - low) * np.array(LEVELS)
        self.quality.committed(SimpleNamespace(slots=np.array(slots), values=np.array(values, float)), results)

    def __getitem__(self, name):
        return self.metrics.numbers()[f"predictor_{name}"]


@pytest.fixture
def judged():
    return Judged()


def test_a_first_tick_is_held_against_nothing(judged):
    judged.tick([0, 1], [5, 5])
    assert judged["followed_values_total"] == 0


def test_each_value_is_held_against_the_forecast_before_it_within_a_batch_and_between_batches(judged):
    judged.tick([0, 1, 0], [0, 0, 5])
    assert judged["followed_values_total"] == judged["band_misses_total.above"] == 1
    judged.tick([1, 0], [-5, 0.3])
    assert (judged["followed_values_total"], judged["band_misses_total.below"]) == (3, 1)


def test_uniform_values_in_a_uniform_forecast_are_where_they_should_be(judged):
    values = np.random.default_rng(7).uniform(-1, 1, 20_000)
    judged.tick([3] * len(values), values)
    count = judged["followed_values_total"]
    assert count == len(values) - 1 and judged["band_misses_total.above"] == judged["band_misses_total.below"] == 0
    assert judged["pit_total"] / count == pytest.approx(0.5, abs=0.01)
    assert judged["forecast_loss_total"] / count == pytest.approx(2 / 6 / 2, rel=0.03)  # CRPS of U(-1,1): width / 6
    assert judged["naive_loss_total"] / count == pytest.approx(2 / 3 / 2, rel=0.03)  # E|x - y| is a third of the width


def test_a_slot_with_another_tenant_begins_anew(judged):
    judged.tick([0], [0])
    judged.table.tenancy[0] += 1
    judged.tick([0], [99])
    assert judged["followed_values_total"] == 0


def test_rejected_ticks_rows_that_are_not_followed_and_bands_without_width_do_not_count(judged):
    judged.tick([0, FOLLOWED], [0, 0])
    judged.tick([0], [9], rejected=1)
    judged.tick([FOLLOWED], [9])
    assert judged["followed_values_total"] == 0
    for low, high in ((1, 1), (-np.inf, np.inf), (np.nan, np.nan)):
        judged.tick([5], [0], low, high)
        judged.tick([5], [0])
    assert judged["followed_values_total"] == 2  # the second of each pair that a sound band stood before


def test_one_absurd_value_weighs_no_more_than_the_limit(judged):
    judged.tick([0], [0], -1e-300, 1e-300)
    judged.tick([0], [1e17])
    assert judged["naive_loss_total"] == judged["forecast_loss_total"] == WIDTHS_MAX
