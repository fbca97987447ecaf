"""The arithmetic behind every quoted figure."""

import numpy as np
import pytest

from loadtests.statistics import medians, percentiles, ratio, rounded


def test_a_percentile_is_the_least_value_that_covers_its_share():
    found = percentiles(np.random.default_rng(0).permutation(np.arange(1.0, 1001.0)))
    assert found == {"p50": 500.0, "p95": 950.0, "p99": 990.0, "p99.9": 999.0}


def test_few_latencies_do_not_hide_their_worst():
    assert percentiles(np.array([1.0, 1.0, 1.0, 80.0]))["p99"] == 80.0


def test_no_latencies_have_no_percentiles():
    assert all(np.isnan(value) for value in percentiles(np.empty(0)).values())


def test_medians_go_into_every_branch_and_keep_what_is_no_measurement():
    runs = [{"rate": rate, "cpu": {"server": rate / 2}, "name": "a", "count": 1} for rate in (3.0, 100.0, 4.0)]
    assert medians(runs) == {"rate": 4.0, "cpu": {"server": 2.0}, "name": "a", "count": 1}


def test_a_ratio_of_neighbours_survives_a_machine_that_slows_down():
    ours, theirs = np.array([100.0, 50.0, 10.0]), np.array([20.0, 10.0, 2.0])
    assert ratio(ours, theirs) == pytest.approx(5.0)


def test_files_get_significant_digits():
    assert rounded({"a": [123456.789, 7], "b": {"c": 0.00123456}}) == {"a": [123500.0, 7], "b": {"c": 0.001235}}
