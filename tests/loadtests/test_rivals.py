"""The rivals of the comparison are given their due: they see the past only, all of it, and are scored as we are."""

import numpy as np
import pytest

from loadtests import rivals
from loadtests.accuracy import around, crps
from loadtests.processes import gaussian
from predictor_core.levels import LEVELS

pytest.importorskip("river", reason="the extra `peers` is not installed")


@pytest.fixture(scope="module")
def levels():
    """Moves that follow the last one, and their law."""
    rng, moves = np.random.default_rng(3), np.zeros(1500)
    for t in range(1, len(moves)):
        moves[t] = 0.6 * moves[t - 1] + rng.standard_normal()
    return np.cumsum(moves)


@pytest.mark.parametrize("name", rivals.rivals())
def test_a_rival_sees_nothing_of_the_future(name, levels):
    rival, other = rivals.rivals()[name], levels[:400].copy()
    other[300:] += 50.0
    before, after = rival(levels[:400]), rival(other)
    assert np.array_equal(before[:301], after[:301], equal_nan=True)
    assert not np.array_equal(before[301], after[301])
    assert np.isfinite(before[10:]).all()


def test_the_autoregression_comes_near_to_the_law(levels):
    moves = np.diff(levels, prepend=0.0)
    law = gaussian(np.concatenate([[0.0], levels[:-1] + 0.6 * moves[:-1]]), 1.0)
    found = crps(rivals.rivals()["autoregression, least squares"](levels), levels) / crps(law, levels)
    assert 1.0 < found < 1.04
    assert crps(rivals.rivals()["random walk"](levels), levels) / crps(law, levels) > 1.2


def test_the_autoregression_is_a_regression_with_fading_weights(levels):
    few = levels[:60]
    moves = np.diff(few, prepend=few[0])
    known = np.concatenate([np.zeros(rivals.LAGS), moves])
    lags = np.array([[*known[t : t + rivals.LAGS][::-1], 1.0] for t in range(len(few) + 1)])
    fading = rivals.FORGETTING ** np.arange(len(few))[::-1]
    weighed = lags[1:-1].T * fading[1:]
    prior = np.eye(rivals.LAGS + 1) / rivals.PRIOR * rivals.FORGETTING ** (len(few) - 1)
    weights = np.linalg.solve(weighed @ lags[1:-1] + prior, weighed @ moves[1:])
    assert rivals.regression(np.append(few, 0.0))[-1] == pytest.approx(few[-1] + weights @ lags[-1], rel=1e-9)


def test_a_band_is_as_wide_as_the_errors_so_far():
    rng = np.random.default_rng(0)
    levels, centers = rng.standard_normal(3000) * 2.0, np.zeros(3000)
    centers[0] = np.nan
    quantiles = around(centers, levels)
    inside = (levels >= quantiles[:, np.searchsorted(LEVELS, 0.05)]) & (
        levels <= quantiles[:, np.searchsorted(LEVELS, 0.95)]
    )
    assert 0.86 < inside[250:].mean() < 0.92
    assert np.isnan(quantiles[:2]).all() and np.isfinite(quantiles[2:]).all()


def test_the_series_are_those_that_the_page_names():
    liquid, measured = rivals.liquid(), rivals.measured()
    assert (len(liquid), len(measured)) == (13, 6)
    for series in (*liquid.values(), *measured.values()):
        assert len(series) >= 500 and np.isfinite(series).all()
        moves = np.diff(rivals.scaled(series)[:250])
        assert np.abs(moves).mean() == pytest.approx(1.0)


def test_the_table_tells_means_and_the_worst_series():
    found = {"random walk": {"liquid": {"a": 0.5, "b": 2.0}, "measured": {"c": 0.9}}}
    assert rivals.shown(found).splitlines()[-1] == "| random walk | 1.000 | 0.900 | 2.000 (b) |"
