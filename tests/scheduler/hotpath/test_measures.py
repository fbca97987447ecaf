import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import BadRules
from scheduler.hotpath import LatencyHistogram
from scheduler.hotpath.objective import Term, constraint_margin, model_objective, objective, transport_objective

latencies = st.lists(st.integers(1_000, 10**11), min_size=1, max_size=200)


def histogram(values):
    made = LatencyHistogram()
    made.record(np.array(values))
    return made


@given(latencies, st.sampled_from([0.5, 0.95, 0.99, 1.0]))
@settings(max_examples=60)
def test_a_quantile_is_right_within_the_width_of_a_bucket(values, level):
    exact = sorted(values)[max(0, int(np.ceil(level * len(values))) - 1)]
    assert histogram(values).quantile(level) == pytest.approx(exact, rel=0.0222)


@given(latencies, latencies)
@settings(max_examples=30)
def test_histograms_of_workers_add_up_to_that_of_the_fleet(one, other):
    merged = histogram(one).merge(histogram(other))
    assert (merged.counts == histogram(one + other).counts).all()
    assert merged.count == len(one) + len(other)


@given(latencies)
@settings(max_examples=30)
def test_a_histogram_survives_its_bytes(values):
    made = histogram(values)
    assert (LatencyHistogram.decode(made.encode()).counts == made.counts).all()


def test_latencies_beyond_the_range_are_counted_at_its_ends():
    made = histogram([0, 5, 10**16])
    assert made.count == 3 and made.counts[0] == 2 and made.counts[-1] == 1


def test_bytes_that_are_no_histogram_and_empty_histograms_are_refused():
    for wrong in (b"123", b"\xff" * 10):
        with pytest.raises(BadRules):
            LatencyHistogram.decode(wrong)
    with pytest.raises(BadRules, match="not empty"):
        LatencyHistogram().quantile(0.5)


def test_the_transport_objective_weighs_five_ratios():
    calm = {"p95": 0.8, "p99": 0.75, "lag": 0.4, "cost": 1.1, "loss": 0.98}
    assert transport_objective(**calm) == pytest.approx(0.7555)
    assert transport_objective(**{**calm, "p95": 8.0}) == pytest.approx(2.145906, abs=1e-6)
    assert transport_objective(**calm, margin=-0.2) == pytest.approx(1.7555)
    assert transport_objective(**calm, margin=0.2) == pytest.approx(0.7555)


def test_the_model_objective_weighs_three_ratios():
    assert model_objective(loss=1, coverage=1, p95=1) == pytest.approx(1.0)
    assert model_objective(loss=0.8, coverage=0.4, p95=1.1) == pytest.approx(0.56 + 0.06 + 0.165)
    assert model_objective(loss=0.8, coverage=0.4, p95=1.1, margin=-0.1) == pytest.approx(1.285)


def test_weights_that_do_not_add_up_are_refused():
    with pytest.raises(BadRules, match="sum of weights"):
        objective([Term(1, 1, 0.5)])


def test_a_margin_needs_constraints_with_limits():
    with pytest.raises(BadRules, match="at least one"):
        constraint_margin([])
    with pytest.raises(BadRules, match="limit"):
        constraint_margin([(1, 0)])
