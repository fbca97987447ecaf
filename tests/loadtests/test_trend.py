"""Growth that is there is found, and noise is not taken for it."""

import numpy as np
import pytest

from loadtests.trend import trend

SECONDS = np.arange(600.0)


def noise(seed=0, size=600):
    return np.random.default_rng(seed).normal(0, 1, size)


def test_a_line_has_its_slope_and_a_narrow_interval():
    found = trend(SECONDS, 1000 + SECONDS / 6)
    assert found.per_hour == pytest.approx(600)
    assert found.growth == pytest.approx(599 / 6 / found.mean)
    assert found.low == pytest.approx(found.high)
    assert found.grows(0.02)


def test_noise_does_not_grow():
    found = [trend(SECONDS, 1000 + 50 * noise(seed)) for seed in range(20)]
    assert not any(each.grows(0.02) for each in found)
    assert sum(each.low <= 0 <= each.high for each in found) >= 17


def test_a_random_walk_gets_a_wider_interval_than_independent_noise_of_its_size():
    walk = noise().cumsum()
    independent = np.random.default_rng(1).permutation(walk)
    wide, narrow = (trend(SECONDS, 1000 + series) for series in (walk, independent))
    assert wide.high - wide.low > narrow.high - narrow.low


def test_slow_growth_that_is_sure_is_allowed_up_to_its_limit():
    found = trend(SECONDS, 1000 + SECONDS / 60)
    assert found.low > 0 and not found.grows(0.02) and found.grows(0.005)


def test_a_few_samples_tell_nothing():
    assert trend([0.0, 1.0], [1.0, 2.0]) is None


def test_nothing_stays_nothing():
    assert trend(SECONDS, np.zeros(600)).growth == 0
