"""WTMM finds the exponents of fractional Brownian motion, obeys its cone, and its cascade agrees with it roughly."""

import jax
import numpy as np
import pytest

from loadtests.detectors import fractional_noise, online_wtmm, rmse, run_wtmm, whole_wtmm
from predictor_core import wtmm
from predictor_core.config import PredictorConfig


@pytest.mark.parametrize("precision", [32, 64])
@pytest.mark.parametrize("lanes", [(), (64,)])
def test_a_tick_keeps_every_shape_and_precision(precision, lanes):
    cold = wtmm.cold(PredictorConfig(float_precision=precision).static(), lanes)
    with jax.enable_x64(True):
        new, _ = jax.eval_shape(wtmm.update, cold, jax.ShapeDtypeStruct(lanes, cold.sums.dtype))
    assert [(a.shape, a.dtype) for a in jax.tree.leaves(new)] == [(a.shape, a.dtype) for a in jax.tree.leaves(cold)]


def test_the_exponent_of_512_values_is_near_the_truth():
    assert rmse(whole_wtmm, 512, 150) <= 0.045


def test_the_cascade_in_the_tick_is_nearly_as_near():
    assert rmse(online_wtmm, 512, 150) <= 0.060


@pytest.fixture(scope="module")
def brownian():
    return np.cumsum(fractional_noise(0.5, 2048, 8, np.random.default_rng(2)), 0).T


def test_the_spectrum_of_a_monofractal_peaks_at_its_exponent_and_is_narrow(brownian):
    for path in brownian:
        found = wtmm.analyse(path)
        peak = found.exponents[found.dimensions.argmax()]
        assert abs(peak - 0.5) < 0.15 and 0.9 < found.dimensions.max() < 1.1
        assert np.ptp(found.exponents[found.dimensions > 0.5]) < 0.7


def test_tau_is_a_line_for_a_monofractal_and_minus_one_at_nought(brownian):
    found = wtmm.analyse(brownian[0])
    assert abs(np.interp(0.0, found.moments, found.tau) + 1) < 0.01
    positive = found.moments > 0
    line = np.polyfit(found.moments[positive], found.tau[positive], 1)
    assert np.abs(np.polyval(line, found.moments[positive]) - found.tau[positive]).max() < 0.15


def test_a_supremum_comes_from_within_the_cone():
    """|b - b'| <= C (a - a'), the stricter of the two published readings."""
    widths = np.array([1.0, 2.0, 4.0, 8.0])
    modulus = np.zeros((4, 101))
    modulus[0, 50] = 1.0
    for cone in (1.0, 1.5, 3.0):
        reached = wtmm._in_cone(modulus, widths, cone) > 0
        for level, width in enumerate(widths):
            far = np.abs(np.flatnonzero(reached[level]) - 50).max()
            assert far <= cone * (width - 1)


def test_the_partition_function_is_the_sum_over_the_maxima_lines():
    path = np.cumsum(fractional_noise(0.7, 512, 1, np.random.default_rng(3))[:, 0])
    found = wtmm.analyse(path)
    counts = np.array([len(places) for places in found.maxima])
    nought = found.partition[np.argmin(np.abs(found.moments))]
    assert np.allclose(nought, counts)
    assert (np.diff(counts) <= 2).all() and counts[0] > 5 * counts[-1]


def test_decimation_shows_in_the_spectrum_and_keeps_the_exponent():
    """Every second or fourth value of a self-similar path: fewer maxima, the same exponent within a tenth."""
    paths = np.cumsum(fractional_noise(0.7, 4096, 10, np.random.default_rng(4)), 0).T
    whole = np.mean([wtmm.analyse(path).holder for path in paths])
    for step in (2, 4):
        thinned = np.mean([wtmm.analyse(path[::step]).holder for path in paths])
        assert abs(thinned / whole - 1) < 0.1


def test_the_cascade_tells_one_exponent_from_many():
    """A multifractal walk has a wider spectrum than a monofractal one."""
    rng = np.random.default_rng(5)
    plain = rng.standard_normal((2048, 32))
    cascade = np.ones((2048, 32))
    for level in range(9):
        cascade *= np.repeat(np.exp(0.35 * rng.standard_normal((2048 >> level, 32)) - 0.06), 1 << level, 0)
    assert run_wtmm(plain * cascade).width[-1].mean() > 1.5 * run_wtmm(plain).width[-1].mean()


def test_the_cascade_is_quiet_before_it_knows_and_finite_for_ever():
    moves = np.zeros((512, 150))
    moves[:, 1] = 1e30
    moves[:, 2] = np.where(np.arange(512) == 300, 1e30, 0)
    moves[:, 3] = 1e-30
    spectrum = run_wtmm(moves)
    assert np.isfinite(spectrum.holder).all() and np.isfinite(spectrum.width).all()
    assert (spectrum.holder[:, 0] == 0.5).all()


def test_a_drift_of_any_length_costs_no_digits():
    """The level is measured anew every 16 ticks, so a trend of a million steps looks like one of ten."""
    rng = np.random.default_rng(6)
    noise = rng.standard_normal((2048, 32))
    assert np.allclose(run_wtmm(noise).holder[-1], run_wtmm(noise + 10).holder[-1], atol=0.02)


def test_too_short_a_signal_is_refused():
    with pytest.raises(ValueError, match="at least 64"):
        wtmm.analyse(np.zeros(63))
