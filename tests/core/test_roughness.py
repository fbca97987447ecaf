"""The Hölder exponent is near the truth, sees a lone jump, and trips the breaker no more often than it should."""

import jax
import numpy as np
import pytest

from loadtests.detectors import CONFIG, HURSTS, fractional_noise, reported_holder, rmse, run_roughness
from predictor_core import roughness
from predictor_core.config import PredictorConfig


@pytest.mark.parametrize("precision", [32, 64])
@pytest.mark.parametrize("lanes", [(), (64,)])
def test_a_tick_keeps_every_shape_and_precision(precision, lanes):
    config = PredictorConfig(float_precision=precision)
    cold = roughness.cold(config.static(), lanes)
    with jax.enable_x64(True):
        move = jax.ShapeDtypeStruct(lanes, cold.means.dtype)
        new, _ = jax.eval_shape(lambda state, d: roughness.update(state, d, config.params()), cold, move)
    assert [(a.shape, a.dtype) for a in jax.tree.leaves(new)] == [(a.shape, a.dtype) for a in jax.tree.leaves(cold)]


@pytest.mark.parametrize("ticks, limit", [(128, 0.066), (512, 0.033)])
def test_the_reported_exponent_is_near_the_truth(ticks, limit):
    assert rmse(reported_holder, ticks, 300) <= limit


def test_brownian_motion_of_a_thousand_steps_reads_one_half():
    path = np.cumsum(np.random.default_rng(123).standard_normal(1000) * 1e-3**0.5)
    assert abs(roughness.estimate(path)["holder"] - 0.5) < 0.05


def test_fractional_brownian_motion_reads_its_own_exponent_within_a_tenth():
    path = np.cumsum(fractional_noise(0.7, 1024, 1, np.random.default_rng(0))[:, 0])
    assert abs(roughness.estimate(path)["holder"] / 0.7 - 1) < 0.1


@pytest.mark.parametrize("hurst", HURSTS)
def test_long_paths_read_it_within_a_twentieth(hurst):
    """At 1024 steps no estimator holds 5 % (one deviation is .02); the mean of forty paths of 2048 does."""
    moves = fractional_noise(hurst, 2048, 40, np.random.default_rng(1))
    found = np.mean([roughness.estimate(np.cumsum(path))["holder"] for path in moves.T])
    assert abs(found / hurst - 1) < 0.05


def test_a_lone_step_is_singular():
    """Second moments read one half at any jump, so it is h12 that has to see it."""
    step = np.repeat([1.0, 3.0], 500)
    found = roughness.estimate(step)
    assert abs(found["holder"] - 0.5) < 0.05 and abs(found["h12"]) < 0.01


def test_a_step_is_an_emergency_within_five_ticks():
    moves = np.diff(np.repeat([100.0, 200.0], 50), prepend=100.0)[:, None] + np.zeros(4)
    reading = run_roughness(np.pad(moves, ((0, 412), (0, 0))))
    assert not reading.emergency[:50].any() and reading.emergency[55].all()
    assert (reading.holder[55] < CONFIG.holder_threshold).all()


@pytest.fixture(scope="module")
def walks():
    return np.random.default_rng(6).standard_normal((4000, 64))


def test_emergencies_are_rare_on_a_random_walk_and_constant_on_a_rough_one(walks):
    assert run_roughness(walks).emergency[128:].mean() < 0.03
    rough = fractional_noise(0.2, 4000, 64, np.random.default_rng(7))
    assert run_roughness(rough).emergency[512:].mean() > 0.9


def test_ordinary_heavy_tails_are_mostly_no_emergency():
    t4 = np.random.default_rng(8).standard_t(4, (4000, 64))
    assert run_roughness(t4).emergency[128:].mean() < 0.2


def test_the_breaker_stays_tripped_until_the_exponent_is_clear_and_the_grace_is_over(walks):
    moves = walks.copy()
    moves[1000] = 50
    reading = run_roughness(moves)
    trips = np.flatnonzero(np.diff(reading.emergency[:, 0].astype(int), prepend=0))
    lengths = np.diff(trips)[::2]
    assert reading.emergency[1003:1020].all() and (lengths >= CONFIG.grace_period_steps).all()
    ends = trips[1::2]
    assert (reading.holder[ends, 0] > CONFIG.holder_threshold + 0.05).all()


def test_the_thresholds_are_settings(walks):
    never = run_roughness(walks, PredictorConfig(holder_threshold=0.0, robustness_dimension_threshold=2.0).params())
    assert not never.emergency.any()


def test_a_random_walk_has_variance_ratio_one_and_no_autocorrelation(walks):
    reading = run_roughness(walks)
    assert abs(reading.variance_ratio[-1].mean() - 1) < 0.05 and abs(reading.autocorrelation[-1].mean()) < 0.01
    moving = np.cumsum(walks, 0) * 0
    moving[0] = walks[0]
    for tick in range(1, len(walks)):
        moving[tick] = 0.4 * moving[tick - 1] + walks[tick]
    assert abs(run_roughness(moving).autocorrelation[-1].mean() - 0.4) < 0.03


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30])
def test_constants_and_extremes_stay_finite(walks, value):
    reading = run_roughness(np.full_like(walks, value))
    assert all(np.isfinite(leaf).all() for leaf in reading)
    assert ((reading.holder >= 0) & (reading.holder <= 1)).all()
