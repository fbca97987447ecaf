"""The gates reject, ignore and freeze what they should, and let every real series through."""

import jax
import numpy as np
import pytest

from loadtests.detectors import CONFIG, SECOND, SERIES, gated_share, run_gates
from predictor_core import gates
from predictor_core.config import PredictorConfig
from predictor_core.observation import Observation
from predictor_core.result import RejectReason

TICKS, LANES = 400, 4
SECONDS = (1 + np.arange(TICKS, dtype=np.int64))[:, None] * SECOND + np.zeros(LANES, np.int64)


@pytest.fixture
def levels():
    """Independent N(100, 1): a move deviates by 1.41."""
    return 100 + np.random.default_rng(3).standard_normal((TICKS, LANES))


@pytest.mark.parametrize("precision", [32, 64])
@pytest.mark.parametrize("lanes", [(), (64,)])
def test_a_tick_keeps_every_shape_and_precision(precision, lanes):
    config = PredictorConfig(float_precision=precision)
    cold = gates.cold(config.static(), lanes)
    real = np.float32 if precision == 32 else np.float64
    with jax.enable_x64(True):
        now = jax.ShapeDtypeStruct(lanes, np.int64)
        observation = Observation(jax.ShapeDtypeStruct(lanes, np.float64), now, now)
        move = jax.ShapeDtypeStruct(lanes, real)
        new, _ = jax.eval_shape(lambda *args: gates.update(*args, config.params()), cold, observation, move)
    assert [(a.shape, a.dtype) for a in jax.tree.leaves(new)] == [(a.shape, a.dtype) for a in jax.tree.leaves(cold)]


def test_a_tick_not_after_the_last_one_is_late(levels):
    times = SECONDS.copy()
    times[200, 0] = times[199, 0]
    times[200, 1] = times[150, 1]
    rejected = run_gates(levels, times, SECONDS).rejected
    assert rejected[200].tolist() == [RejectReason.late, RejectReason.late, 0, 0]
    assert np.count_nonzero(rejected) == 2


def test_only_finite_numbers_of_sane_size_get_in(levels):
    levels[200] = np.nan, np.inf, -np.inf, 1e300
    verdicts = run_gates(levels)
    assert (verdicts.rejected[200] == RejectReason.not_finite).all()
    assert not verdicts.rejected[201:].any() and not verdicts.domain_error.any()


def test_a_tick_from_beyond_the_allowed_drift_is_from_the_future(levels):
    arrivals = SECONDS.copy()
    arrivals[200, 0] -= CONFIG.max_future_drift_ns + 1
    arrivals[200, 1] -= CONFIG.max_future_drift_ns
    assert run_gates(levels, SECONDS, arrivals).rejected[200].tolist() == [RejectReason.future, 0, 0, 0]


def test_twenty_deviations_from_the_mean_teach_nothing(levels):
    levels[200, 0] = 120
    verdicts = run_gates(levels)
    assert verdicts.outlier[200].tolist() == [True, False, False, False]
    assert not verdicts.learn[200, 0] and not verdicts.reweigh[200, 0]
    assert np.count_nonzero(verdicts.outlier | verdicts.domain_error) == 1  # and the way back is no second one


def test_the_bounds_are_settings(levels):
    levels[200, 0] = 120
    strict = run_gates(levels, params=PredictorConfig(sigma_bound=12.0).params())
    assert strict.domain_error[200, 0] and not strict.outlier[200, 0]
    assert run_gates(levels, params=PredictorConfig(sigma_val=3.0).params()).learn.all()


def test_a_level_shift_of_a_million_deviations_is_refused_five_times_and_then_believed(levels):
    levels[200:, 0] += 1e6
    verdicts = run_gates(levels)
    assert verdicts.domain_error[200:205, 0].all() and verdicts.reanchored[205, 0]
    assert np.count_nonzero(verdicts.domain_error) == 5 and np.count_nonzero(verdicts.reanchored) == 1
    assert verdicts.learn[205:].all()
    patient = run_gates(levels, params=PredictorConfig(reanchor_after=8).params())
    assert np.flatnonzero(patient.reanchored[:, 0]).tolist() == [208]


def test_a_scale_that_grows_a_millionfold_locks_nothing_out(levels):
    levels[200:, 0] = 100 + 1e6 * (levels[200:, 0] - 100)
    verdicts = run_gates(levels)
    assert verdicts.domain_error[200, 0]
    assert verdicts.learn[220:, 0].mean() > 0.95


def test_the_third_pulse_of_a_kind_is_no_surprise(levels):
    levels[150:350:50, 0] += 50
    verdicts = run_gates(levels)
    refused = verdicts.outlier | verdicts.domain_error
    assert refused[150, 0] and not refused[250:, 0].any()


@pytest.mark.parametrize("name", SERIES)
def test_nothing_real_is_taken_for_an_outlier(name):
    share = gated_share(SERIES[name](np.random.default_rng(11), 4000, 64))
    assert share < 0.0005


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_the_unit_of_the_data_changes_no_verdict(levels, unit):
    levels[200, 0] = 120
    levels[300:310, 1] = 100
    moved = np.round(levels * 2.0**20) * 2.0**-20
    power_of_two = 2.0 ** np.round(np.log2(unit))
    for plain, scaled in zip(run_gates(moved), run_gates(moved * power_of_two), strict=True):
        assert np.array_equal(plain, scaled)


def test_stale_above_the_limit_and_until_the_hysteresis(levels):
    """Ages of 150, 85 and 75 against a limit of 100: stale, still stale, restored."""
    unit = CONFIG.staleness_ttl_ns // 100
    arrivals = SECONDS.copy()
    arrivals[100:200] += 150 * unit
    arrivals[200:300] += 85 * unit
    arrivals[300:] += 75 * unit
    verdicts = run_gates(levels, SECONDS, arrivals, PredictorConfig(degraded_recovery_min_steps=1).params())
    assert not verdicts.stale[:100].any() and verdicts.stale[100:300].all() and not verdicts.stale[300:].any()
    assert np.array_equal(verdicts.stale, verdicts.degraded)
    assert verdicts.learn.all() and not verdicts.reweigh[100:300].any()  # forecasts and learning go on, weights stand
    assert np.flatnonzero(verdicts.restored[:, 0]).tolist() == [300]


def test_an_age_of_days_is_a_backfill_and_not_stale(levels):
    verdicts = run_gates(levels, SECONDS, SECONDS + CONFIG.max_past_drift_ns + 1)
    assert not verdicts.stale.any() and not verdicts.degraded.any()


def test_a_slow_feed_is_not_sparse_but_a_gap_in_it_is(levels):
    """A second between ticks is ten times the Nyquist interval, and yet this asset's own pace."""
    times = SECONDS.copy()
    times[200:, 0] += 60 * SECOND
    times[200:, 1] += 365 * 86_400 * SECOND
    times[200:, 2] += 2 * SECOND
    verdicts = run_gates(levels, times)
    assert verdicts.sparse[200].tolist() == [True, True, False, False] and np.count_nonzero(verdicts.sparse) == 2
    assert verdicts.degraded[200:202, 0].tolist() == [True, True][: CONFIG.degraded_recovery_min_steps]
    assert np.flatnonzero(verdicts.restored[:, 1]).tolist() == [200 + CONFIG.degraded_recovery_min_steps]


def test_a_feed_that_slows_down_for_good_is_sparse_only_for_a_while(levels):
    times = np.where(np.arange(TICKS)[:, None] < 200, SECONDS, SECONDS[200] + 1000 * (SECONDS - SECONDS[200]))
    sparse = run_gates(levels, times).sparse
    assert sparse[201:203].all() and not sparse[230:].any()


def test_five_equal_values_freeze_a_continuous_signal_and_two_lively_ticks_release_it(levels):
    levels[200:240, 0] = levels[200, 0]
    verdicts = run_gates(levels)
    frozen = np.flatnonzero(verdicts.frozen[:, 0])
    assert frozen[0] == 204 and 240 <= frozen[-1] <= 243
    assert not verdicts.frozen[:, 1:].any()
    assert not verdicts.reweigh[204:240, 0].any() and verdicts.restored[:, 0].sum() == 1


def test_a_series_full_of_ties_is_not_frozen_by_them():
    ties = SERIES["75 % ties"](np.random.default_rng(4), 4000, 64)
    assert run_gates(ties).frozen.mean() < 0.0005


def test_a_tied_series_freezes_when_chance_cannot_explain_it():
    ties = SERIES["75 % ties"](np.random.default_rng(4), 4000, 64)
    ties[3000:3300] = ties[3000]
    frozen = run_gates(ties).frozen
    assert frozen[3100:3300].mean() > 0.99 and frozen[3400:].mean() < 0.01


def test_a_constant_for_ever_is_frozen_and_comes_back(levels):
    levels[:300] = 7.0
    verdicts = run_gates(levels)
    assert verdicts.frozen[30:300].all() and verdicts.learn[310:].mean() > 0.98
    assert not verdicts.frozen[340:].any()
