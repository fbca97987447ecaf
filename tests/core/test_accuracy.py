"""The forecasts are as good as they were. Deterministic: the bounds stand a little above today's figures.

`python -m loadtests.accuracy` prints the figures themselves, and with --parts what each part of the predictor adds.
"""

import numpy as np
import pytest

from loadtests import accuracy, processes

# CRPS over the law itself, or over the random walk with EWMA volatility where the law is not known; coverage of 90 %.
ORACLE_MAX = {
    "fbm_0.2": 1.022,
    "fbm_0.5": 1.010,
    "fbm_0.85": 1.020,
    "gbm": 1.008,
    "ou": 1.020,
    "ar2": 1.025,
    "garch_t": 1.012,
    "merton": 1.010,
    "logistic": 2.9,
    "mackey_glass": 1.75,
}
RANDOM_WALK_MAX = {
    "heston": 1.004,
    "regimes": 0.986,
    "heartbeat": 0.36,
    "daily_cycle": 0.74,
    "bounce": 0.815,
    "short_season": 0.30,
}


@pytest.fixture(scope="module")
def rows():
    return accuracy.score(processes.suite(2000))


@pytest.mark.parametrize("name", ORACLE_MAX)
def test_near_the_law_itself(rows, name):
    assert rows[name]["crps_over_oracle"] < ORACLE_MAX[name]


@pytest.mark.parametrize("name", RANDOM_WALK_MAX)
def test_better_than_a_random_walk(rows, name):
    assert rows[name]["crps"] < RANDOM_WALK_MAX[name]


def test_nine_in_ten_values_lie_in_the_band(rows):
    coverage = {name: row["coverage90"] for name, row in rows.items() if name not in ("bounce", "short_season")}
    assert all(abs(share - 0.9) < 0.02 for share in coverage.values()), coverage


def test_the_yardstick_is_a_random_walk():
    levels = np.cumsum(np.random.default_rng(0).standard_normal(2000))
    assert accuracy.crps(accuracy.random_walk(levels), levels) == pytest.approx(1 / np.sqrt(np.pi), rel=0.05)
